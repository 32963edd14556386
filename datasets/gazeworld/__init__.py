"""GazeWorld: an endless drawn world in which following a gaze is a real problem and its truth is exact.

``compose`` describes a scene, ``draw`` paints it, ``clip`` sets it in motion, ``annotators`` says what people mark in
it and who looks at whom. ``dataset`` makes a data set of it, ``fakes`` files like those of the real data sets.
``models`` are small networks embedded in the package, and ``pretraining`` makes the labels they were trained on.
"""

from gazebench.datasets.gazeworld.dataset import GazeWorld

__all__ = ["GazeWorld"]
