"""GazeWorld: an endless drawn world in which following a gaze is a real problem and its truth is exact.

``compose`` describes a scene, ``draw`` paints it, ``clip`` sets it in motion, ``social`` says who looks at whom,
``annotate`` asks noisy people about it, ``statistics`` says what a world is like and ``contact_sheet`` shows it. NumPy
and Pillow are all it needs.
"""

from gazebench.datasets.gazeworld.world.catalogue import CATEGORIES, COLOURS
from gazebench.datasets.gazeworld.world.clip import clip
from gazebench.datasets.gazeworld.world.compose import Options, compose
from gazebench.datasets.gazeworld.world.draw import draw
from gazebench.datasets.gazeworld.world.observers import annotate, statistics
from gazebench.datasets.gazeworld.world.scene import WORLD_VERSION, Backdrop, Look, Person, Scene, Thing
from gazebench.datasets.gazeworld.world.sheet import contact_sheet, mark
from gazebench.datasets.gazeworld.world.social import social

__all__ = [
    "CATEGORIES",
    "COLOURS",
    "WORLD_VERSION",
    "Backdrop",
    "Look",
    "Options",
    "Person",
    "Scene",
    "Thing",
    "annotate",
    "clip",
    "compose",
    "contact_sheet",
    "draw",
    "mark",
    "social",
    "statistics",
]
