"""The commands of `edgetam-label`: thin shells, each over one call of the library."""
