"""Figures: 3-D models in random poses and colours, drawn as cut-outs for `train --cutouts`."""
