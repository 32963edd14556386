"""To be deleted: names of the drawn world under the paths of before, until all importers have moved."""

from gazebench.datasets.gazeworld.annotators import annotate as annotate
from gazebench.datasets.gazeworld.annotators import social as social
from gazebench.datasets.gazeworld.catalogue import CATEGORIES as CATEGORIES
from gazebench.datasets.gazeworld.clip import clip as clip
from gazebench.datasets.gazeworld.compose import compose as compose
from gazebench.datasets.gazeworld.draw import draw as draw
from gazebench.datasets.gazeworld.scene import WORLD_VERSION as WORLD_VERSION
from gazebench.datasets.gazeworld.scene import Scene as Scene
