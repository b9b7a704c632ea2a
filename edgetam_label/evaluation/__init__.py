"""Measuring segmentation: datasets, J and F, protocols, baselines."""
