"""Embedded models by name (the merge takes the full version)."""

from gazebench.datasets.gazeworld.tiny_vlm import tiny_vlm

VLMS = {"tiny": tiny_vlm}
