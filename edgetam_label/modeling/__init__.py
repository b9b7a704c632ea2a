"""The network: one block of the papers' figures per file. Stateless; names match the checkpoint."""

from edgetam_label.modeling.edgetam import EdgeTAM, ImageFeatures, ObjectMask
from edgetam_label.modeling.mask_decoder import DecoderOutput
from edgetam_label.modeling.memory_attention import Memory

__all__ = ["DecoderOutput", "EdgeTAM", "ImageFeatures", "Memory", "ObjectMask"]
