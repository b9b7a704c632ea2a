"""Checkpoints that ship with the package; `README.md` beside them is the model card."""
