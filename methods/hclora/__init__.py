"""HCLoRA: Gaze-LLE with head-conditioned local LoRA and the out-of-cone penalty."""

from gazebench.methods.hclora.method import HCLoRA

__all__ = ["HCLoRA"]
