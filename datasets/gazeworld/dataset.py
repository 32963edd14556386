"""GazeWorld: scenes drawn by us from a seed, with the truth no real dataset has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from gazebench.core.boxes import FloatArray
from gazebench.core.errors import DataError
from gazebench.core.types import SOCIAL, Annotations, Records, ragged_starts
from gazebench.data.annotations import cached
from gazebench.data.dataset import Card, Crop, Description, GazeDataset
from gazebench.data.images import resized
from gazebench.datasets.gazeworld.world import WORLD_VERSION, Person, Scene, annotate, compose, draw, social
from gazebench.metrics.protocol import SEVERAL_ANNOTATORS, SOCIAL_GAZE, Protocol, ProtocolMetric
from gazebench.metrics.semantic import LabelAccuracy
from gazebench.metrics.spatial import InOutAP

PARSER = 2
"""A change of what ``_records`` makes of the same scenes is a new number."""

ANNOTATORS = 10
HEIGHT = 224
"""Of a picture in pixels; the width follows the scene's aspect."""

COUNTS = {"train": 3000, "val": 300, "test": 500}
"""Scenes of the standard sets; results on other sizes are marked as such."""


@dataclass(eq=False)
class GazeWorld(GazeDataset):
    """Scenes are composed and drawn when asked for; nothing is on disk.

    Column ``label`` is the category of the thing looked at, ``person`` for a head, "" for an empty spot or a target
    outside; ``target_kind`` tells these apart. Who looks at whom is known of every pair, exactly.

    Args:
        root: not used; the world has no files.
        bad_rows: not used; there are none.
        subsets: a split file to use instead of the exact subsets.
        train: training scenes; other numbers than the defaults make another set, and the record says so.
        val: validation scenes.
        test: test scenes.
        world_seed: another world of the same kind.
    """

    train: int = COUNTS["train"]
    val: int = COUNTS["val"]
    test: int = COUNTS["test"]
    world_seed: int = 0

    card: ClassVar[Card] = Card(
        name="gazeworld",
        title="GazeWorld",
        licence="Apache-2.0 (drawn by this package)",
        source="this package",
        citation="gazebench",
        layout="no files: scenes are drawn from a seed",
        # Of world 1 with seed 0: another seed or size has other numbers and does not count as the standard set.
        official={
            "train": {"images": 3000, "people": 7690, "in_frame": 6213},
            "val": {"images": 300, "people": 760, "in_frame": 618},
            "trainval": {"images": 3300, "people": 8450, "in_frame": 6831},
            "test": {"images": 500, "people": 1276, "in_frame": 1021},
        },
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

    def parse(self, split: str) -> Annotations:
        """The people of all scenes of a split; the train scenes first in ``trainval``."""
        wanted = {name: getattr(self, name) for name in COUNTS}
        if any(count < 0 for count in wanted.values()):
            raise DataError(f"numbers of scenes must not be negative: {wanted}")
        parts = ("train", "val") if split == "trainval" else (split,)
        world = [WORLD_VERSION, PARSER, ANNOTATORS, HEIGHT, self.world_seed]
        key = ["gazeworld", *world, split, *(wanted[p] for p in parts)]
        return cached(
            key, [], lambda: _records(split, [(p, i) for p in parts for i in range(wanted[p])], self.world_seed)
        )

    def scene(self, key: str) -> Scene:
        """The scene an image key such as ``test/12`` stands for."""
        split, _, index = key.partition("/")
        return _composed(self.world_seed, int(index), split)

    def image(
        self,
        records: Records,
        image: int,
        size: tuple[int, int] | None = None,
        crop: Crop | None = None,
        flip: bool = False,
    ) -> npt.NDArray[np.uint8]:
        """Draws the scene, then treats the picture as if it came from a file."""
        width, height = records.sizes[image].tolist()
        return resized(draw(self.scene(str(records.images[image])), width, height), size, crop, flip)

    def salient_regions(self, records: Records, image: int) -> FloatArray | None:
        """The salient box of the scene."""
        return np.array([self.scene(str(records.images[image])).salient_box], dtype=np.float64)

    def descriptions(self, records: Records, image: int) -> list[Description]:
        """What everybody looks like, and the colour and kind of what they look at."""
        scene = self.scene(str(records.images[image]))
        return [_in_words(scene, person) for person in scene.people]

    @classmethod
    def fake(cls, root: Path, *, people: int = 12, seed: int = 0) -> GazeWorld:
        """A few scenes; ``root`` stays empty."""
        return cls(train=people, val=max(2, people // 4), test=people, world_seed=seed)


_composed = lru_cache(maxsize=64)(compose)
"""Whoever asks for a picture soon asks for its words."""


def _records(split: str, keys: list[tuple[str, int]], seed: int) -> Annotations:
    scenes = [compose(seed, index, part) for part, index in keys]
    people = [(image, person) for image, scene in enumerate(scenes) for person in scene.people]
    columns: dict[str, list[Any]] = {
        "subset": [person.subset for _, person in people],
        "label": [person.target_category for _, person in people],
        "target_kind": [person.target_kind for _, person in people],
    }
    points = [_points(split, scenes[image], person) for image, person in people]
    pairs = [social(scene) for scene in scenes]
    return Annotations(
        dataset="gazeworld",
        split=split,
        images=np.array([f"{part}/{index}" for part, index in keys], dtype=str),
        groups=np.array([f"{part}/{index}" for part, index in keys], dtype=str),
        person_id=np.array([f"{'/'.join(map(str, keys[image]))}#{person.id}" for image, person in people], dtype=str),
        person_image=np.array([image for image, _ in people], dtype=np.int64),
        head=np.array([person.head for _, person in people], dtype=np.float64).reshape(-1, 4),
        points=np.concatenate([np.zeros((0, 2)), *points]),
        point_start=ragged_starts([len(some) for some in points]),
        inout=np.array([person.inout for _, person in people], dtype=np.int8),
        head_unit="normalised",
        point_unit="normalised",
        columns={name: np.array(values, dtype=str) for name, values in columns.items()},
        # The scenes the fingerprint covers decide them, so they are not in it themselves.
        pairs={name: np.concatenate([np.zeros(0, np.int8), *(labels[name] for labels in pairs)]) for name in SOCIAL},
        sizes=np.array([(round(HEIGHT * scene.aspect), HEIGHT) for scene in scenes], dtype=np.int64).reshape(-1, 2),
    )


FACE = 70.0
"""Degrees of yaw up to which glasses and a beard can be seen."""


def _in_words(scene: Scene, person: Person) -> Description:
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
    turned = abs((person.head_yaw + 180) % 360 - 180) > FACE
    hidden = frozenset({"glasses", "beard"}) if turned else frozenset[str]()
    target = ""
    labels: tuple[str, ...] = ()
    if person.target_kind == "thing":
        seen = scene.find(person.target_id)
        target = f"{seen.colour} {seen.category}"
        labels = (seen.category,)
    elif person.target_kind == "person":
        other = next(other for other in scene.people if other.id == person.target_id)
        target, labels = f"person in {other.clothes}", (person.target_category,)
    return Description(traits, hidden, target, labels)


def _points(split: str, scene: Scene, person: Any) -> npt.NDArray[np.float64]:
    if not person.inout:
        return np.zeros((0, 2))
    return annotate(scene, person, ANNOTATORS) if split == "test" else np.array([person.gaze], dtype=np.float64)
