"""The data set GazeWorld: scenes drawn from a seed, with truth that no real data set has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from gazebench.core.boxes import FloatArray
from gazebench.core.errors import DataError
from gazebench.core.files import cached
from gazebench.core.types import SOCIAL, Annotations, Records, ragged_starts
from gazebench.data.dataset import Card, Crop, Description, GazeDataset
from gazebench.data.images import resized
from gazebench.datasets.gazeworld.annotators import annotate, social
from gazebench.datasets.gazeworld.compose import compose
from gazebench.datasets.gazeworld.draw import draw
from gazebench.datasets.gazeworld.scene import WORLD_VERSION, Person, Scene, World
from gazebench.metrics.protocol import SEVERAL_ANNOTATORS, SOCIAL_GAZE, Protocol, ProtocolMetric
from gazebench.metrics.semantic import LabelAccuracy
from gazebench.metrics.spatial import InOutAP

PARSER = 2
"""Raise it whenever ``parse`` returns other annotations of the same scenes."""
ANNOTATORS = 10
HEIGHT = 224
"""Height of an image in pixels; the width follows from the aspect of the scene."""
COUNTS = {"train": 3000, "val": 300, "test": 500}
"""The scenes of the standard sets; results on other numbers are marked as such."""
# With seed 0: other seeds and sizes have other numbers and do not count as the standard set.
OFFICIAL: dict[World, dict[str, dict[str, int]]] = {
    1: {
        "train": {"images": 3000, "people": 7690, "in_frame": 6213},
        "val": {"images": 300, "people": 760, "in_frame": 618},
        "trainval": {"images": 3300, "people": 8450, "in_frame": 6831},
        "test": {"images": 500, "people": 1276, "in_frame": 1021},
    },
    2: {},
}
LARGEST_YAW = 70.0
"""Largest turn of a head, in degrees, at which its glasses and beard are visible."""

# The image and the descriptions of a scene are usually read one after the other.
_compose = lru_cache(maxsize=64)(compose)


@dataclass(eq=False)
class GazeWorld(GazeDataset):
    """Scenes are composed and drawn when they are asked for; nothing is on disk.

    Column ``label`` is the category of the thing looked at, ``person`` for a head, and "" for an empty spot or a target
    outside, which ``target_kind`` tells apart. Who looks at whom is known for every pair, exactly.

    Args:
        root: not used; the world has no files.
        bad_rows: not used; there are none.
        subsets: a split file to use instead of the exact subsets.
        train: training scenes; with other numbers than the defaults it is another set, and the record says so.
        val: validation scenes.
        test: test scenes.
        world_seed: other seeds give other scenes of the same kind.
        world: version of the world; 2 has smaller and partly hidden heads, dark glasses, more things and people, and
            fewer people who look at what is salient.
    """

    train: int = COUNTS["train"]
    val: int = COUNTS["val"]
    test: int = COUNTS["test"]
    world_seed: int = 0
    world: World = WORLD_VERSION

    card: ClassVar[Card] = Card(
        name="gazeworld",
        title="GazeWorld",
        licence="Apache-2.0 (drawn by this package)",
        source="this package",
        citation="gazebench",
        layout="no files: scenes are drawn from a seed",
        official=OFFICIAL[WORLD_VERSION],
        label_version=f"world {WORLD_VERSION}",
        head_boxes="exact",
        synthetic=True,
    )
    everybody: ClassVar[bool] = True
    protocol: ClassVar[Protocol] = Protocol(
        name="gazeworld",
        version=1,
        unit="person of a scene, with ten annotators",
        metrics=(
            *SEVERAL_ANNOTATORS,
            ProtocolMetric("ap", InOutAP, subsets=False),
            ProtocolMetric("acc_1_exact", LabelAccuracy),
            *SOCIAL_GAZE,
        ),
        headline="avg_l2",
        origin="ours",
        notes="synthetic scenes: comparable with nothing but themselves",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.world not in OFFICIAL:
            raise DataError(f"there is no world {self.world}: known are {', '.join(map(str, OFFICIAL))}")
        if self.world != WORLD_VERSION:
            official, label_version = OFFICIAL[self.world], f"world {self.world}"
            self.card = replace(type(self).card, official=official, label_version=label_version)  # type: ignore[misc]

    def parse(self, split: str) -> Annotations:
        wanted = {name: getattr(self, name) for name in COUNTS}
        if any(count < 0 for count in wanted.values()):
            raise DataError(f"numbers of scenes must not be negative: {wanted}")
        parts = ("train", "val") if split == "trainval" else (split,)
        world = [self.world, PARSER, ANNOTATORS, HEIGHT, self.world_seed]
        key = ["gazeworld", *world, split, *(wanted[part] for part in parts)]
        names = [f"{part}/{index}" for part in parts for index in range(wanted[part])]
        return cached(key, lambda: self._annotations(split, names))

    def scene(self, key: str) -> Scene:
        """The scene of an image key such as ``test/12``."""
        split, _, index = key.partition("/")
        return _compose(self.world_seed, int(index), split, self.world)

    def image(
        self,
        records: Records,
        image: int,
        size: tuple[int, int] | None = None,
        crop: Crop | None = None,
        flip: bool = False,
    ) -> npt.NDArray[np.uint8]:
        width, height = records.sizes[image].tolist()
        return resized(draw(self.scene(str(records.images[image])), width, height), size, crop, flip)

    def salient_regions(self, records: Records, image: int) -> FloatArray | None:
        return np.array([self.scene(str(records.images[image])).salient_box], dtype=np.float64)

    def descriptions(self, records: Records, image: int) -> list[Description]:
        """The appearance of all people, and the colour and category of their targets."""
        scene = self.scene(str(records.images[image]))
        return [_description(scene, person) for person in scene.people]

    @classmethod
    def fake(cls, root: Path, *, people: int = 12, seed: int = 0) -> GazeWorld:
        """A few scenes; ``root`` stays empty."""
        return cls(train=people, val=max(2, people // 4), test=people, world_seed=seed)

    def _annotations(self, split: str, names: list[str]) -> Annotations:
        scenes = [self.scene(name) for name in names]
        people = [(image, person) for image, scene in enumerate(scenes) for person in scene.people]
        columns = {
            "subset": [person.subset for _, person in people],
            "label": [person.target_category for _, person in people],
            "target_kind": [person.target_kind for _, person in people],
        }
        if split == "test":
            points = [annotate(scenes[image], person, ANNOTATORS) for image, person in people]
        else:
            points = [np.array([person.gaze] * person.inout, dtype=np.float64).reshape(-1, 2) for _, person in people]
        pairs = [social(scene) for scene in scenes]
        return Annotations(
            dataset="gazeworld",
            split=split,
            images=np.array(names, dtype=str),
            groups=np.array(names, dtype=str),
            person_id=np.array([f"{names[image]}#{person.id}" for image, person in people], dtype=str),
            person_image=np.array([image for image, _ in people], dtype=np.int64),
            head=np.array([person.head for _, person in people], dtype=np.float64).reshape(-1, 4),
            points=np.concatenate([np.zeros((0, 2)), *points]),
            point_start=ragged_starts([len(some) for some in points]),
            inout=np.array([person.inout for _, person in people], dtype=np.int8),
            head_unit="normalised",
            point_unit="normalised",
            columns={name: np.array(values, dtype=str) for name, values in columns.items()},
            # Not in the fingerprint: they follow from the scenes, which it covers.
            pairs={
                name: np.concatenate([np.zeros(0, np.int8), *(labels[name] for labels in pairs)]) for name in SOCIAL
            },
            sizes=np.array([(round(HEIGHT * scene.aspect), HEIGHT) for scene in scenes], np.int64).reshape(-1, 2),
        )


def _description(scene: Scene, person: Person) -> Description:
    look = person.look
    traits = {"clothes": look.clothes}
    if look.hair not in ("bald", "cap"):
        traits["hair"] = look.hair_colour
    if look.hair == "cap":
        traits["hat"] = "cap"
    if look.glasses:
        traits["glasses"] = "yes"
    if look.beard:
        traits["beard"] = "yes"
    if look.pose != "bust":
        traits["pose"] = look.pose
    turned = abs((person.head_yaw + 180) % 360 - 180) > LARGEST_YAW
    hidden = frozenset({"glasses", "beard"}) if turned else frozenset[str]()
    target, labels = "", (person.target_category,) if person.target_id else ()
    if person.target_kind == "thing":
        thing = scene.find(person.target_id)
        target = f"{thing.colour} {thing.category}"
    elif person.target_kind == "person":
        target = f"person in {next(other for other in scene.people if other.id == person.target_id).clothes}"
    return Description(traits, hidden, target, labels)
