"""VL4Gaze: a vision-language model that answers questions about gaze."""

from gazebench.methods.vl4gaze.method import VL4Gaze

__all__ = ["VL4Gaze"]
