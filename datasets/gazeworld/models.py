"""The small models that come with GazeWorld, by name; ``gazebench.core.plugins.embedded`` finds them."""

from gazebench.datasets.gazeworld.tiny_vit import tiny_vit

BACKBONES = {"tiny": tiny_vit}
