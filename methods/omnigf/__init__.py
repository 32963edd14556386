"""OmniGF: a dual-branch vision-language model on Qwen3-VL."""

from gazebench.methods.omnigf.method import OmniGF

__all__ = ["OmniGF"]
