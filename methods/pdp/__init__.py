"""PDP: a distribution over patches of the picture and the outside, beside the heatmap."""

from gazebench.methods.pdp.method import PDP

__all__ = ["PDP"]
