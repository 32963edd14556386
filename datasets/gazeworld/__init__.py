"""GazeWorld: scenes drawn from a seed, with the truth that no real data set has."""

from gazebench.datasets.gazeworld.dataset import GazeWorld

__all__ = ["GazeWorld"]
