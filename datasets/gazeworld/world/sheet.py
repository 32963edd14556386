"""Contact sheets: many scenes in one picture, with their truth drawn over them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from gazebench.datasets.gazeworld.world.draw import draw
from gazebench.datasets.gazeworld.world.observers import annotate
from gazebench.datasets.gazeworld.world.pen import Colour
from gazebench.datasets.gazeworld.world.scene import Person, Scene

SUBSET_COLOURS: dict[str, Colour] = {"consistent": (24, 140, 92), "inconsistent": (214, 52, 66), "": (74, 92, 190)}
"""Consistent, inconsistent and out of frame."""


def contact_sheet(
    scenes: Sequence[Scene],
    columns: int = 4,
    height: int = 224,
    overlay: bool = False,
    annotators: int = 0,
    gap: int = 6,
) -> Image.Image:
    """Scenes side by side, each ``height`` pixels high and as wide as the widest aspect among them.

    Args:
        scenes: what to show, row by row.
        columns: scenes per row.
        height: of one scene, in pixels.
        overlay: draws head boxes, gaze arrows (coloured by subset) and the salient box.
        annotators: dots of so many simulated annotators per person, with the overlay.
        gap: pixels of white between scenes.
    """
    width = round(height * max(scene.aspect for scene in scenes))
    rows = math.ceil(len(scenes) / columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for k, scene in enumerate(scenes):
        picture = Image.fromarray(draw(scene, round(height * scene.aspect), height))
        if overlay:
            mark(picture, scene, annotators)
        left = (k % columns) * (width + gap) + (width - picture.width) // 2
        sheet.paste(picture, (left, (k // columns) * (height + gap)))
    return sheet


def mark(picture: Image.Image, scene: Scene, annotators: int = 0) -> None:
    """Draws the truth of a scene over its picture, in place."""
    width, height = picture.size
    pen = ImageDraw.Draw(picture)
    line = max(1, round(height / 160))
    left, top, right, bottom = scene.salient_box
    pen.rectangle((left * width, top * height, right * width, bottom * height), outline=(250, 190, 40), width=line)
    for person in scene.people:
        colour = SUBSET_COLOURS[person.subset]
        x0, y0, x1, y1 = person.head
        pen.rectangle((x0 * width, y0 * height, x1 * width, y1 * height), outline=colour, width=line)
        for x, y in annotate(scene, person, annotators):
            r = 1.2 * line
            pen.ellipse((x * width - r, y * height - r, x * width + r, y * height + r), fill=colour, outline="white")
        _arrow(pen, person, width, height, colour, line)


def _arrow(pen: ImageDraw.ImageDraw, person: Person, width: int, height: int, colour: Colour, line: int) -> None:
    x0, y0, x1, y1 = person.eye[0] * width, person.eye[1] * height, person.gaze[0] * width, person.gaze[1] * height
    pen.line((x0, y0, x1, y1), fill=colour, width=line)
    turn, head = math.atan2(y1 - y0, x1 - x0), 5 * line
    barbs = [(x1 - head * math.cos(turn + side), y1 - head * math.sin(turn + side)) for side in (-0.45, 0.45)]
    pen.polygon([(x1, y1), *barbs], fill=colour)
