"""GazeWorld: an endless drawn world in which following a gaze is a real problem and its truth is exact.

``compose`` describes a scene, ``draw`` paints it, ``clip`` sets it in motion, ``social`` says who looks at whom,
``annotate`` asks noisy people about it, ``statistics`` says what a world is like and ``contact_sheet`` shows it. NumPy
and Pillow are all it needs.
"""

from gazebench.world.catalogue import CATEGORIES, COLOURS
from gazebench.world.clip import clip
from gazebench.world.compose import Options, compose
from gazebench.world.draw import draw
from gazebench.world.observers import annotate, statistics
from gazebench.world.scene import WORLD_VERSION, Backdrop, Look, Person, Scene, Thing
from gazebench.world.sheet import contact_sheet, mark
from gazebench.world.social import social

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
