"""Datasets out of sessions and back: one registry, one small module per format."""

from .formats import EXPORTERS, IMPORTERS, Format, find_format

__all__ = ["EXPORTERS", "IMPORTERS", "Format", "find_format"]
