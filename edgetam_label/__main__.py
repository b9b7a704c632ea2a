"""`python -m edgetam_label` is the same as `edgetam-label`."""

from edgetam_label.cli import main

if __name__ == "__main__":
    main()
