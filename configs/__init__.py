"""Model configurations (TOML) and ready-made Label Studio labelling configs."""
