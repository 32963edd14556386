"""Chong et al.: a trunk for the picture, one for the head, and an attention that joins them."""

from gazebench.methods.chong.method import Chong

__all__ = ["Chong"]
