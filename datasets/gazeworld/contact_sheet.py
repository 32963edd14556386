"""Contact sheets: many scenes in one picture, with their truth drawn over them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from gazebench.datasets.gazeworld.annotators import annotate
from gazebench.datasets.gazeworld.draw import draw
from gazebench.datasets.gazeworld.scene import Scene

SUBSET_COLOURS = {"consistent": (24, 140, 92), "inconsistent": (214, 52, 66), "": (74, 92, 190)}


def contact_sheet(
    scenes: Sequence[Scene], columns: int = 4, height: int = 224, overlay: bool = False, annotators: int = 0
) -> Image.Image:
    """Scenes side by side.

    Args:
        scenes: row by row.
        columns: scenes per row.
        height: of one scene, in pixels.
        overlay: draws head boxes and gaze arrows (coloured by subset), and the salient box.
        annotators: how many simulated annotations per person the overlay shows.
    """
    gap = 6
    width = round(height * max(scene.aspect for scene in scenes))
    rows = math.ceil(len(scenes) / columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for k, scene in enumerate(scenes):
        picture = Image.fromarray(draw(scene, round(height * scene.aspect), height))
        if overlay:
            _overlay(picture, scene, annotators)
        left = (k % columns) * (width + gap) + (width - picture.width) // 2
        sheet.paste(picture, (left, (k // columns) * (height + gap)))
    return sheet


def _overlay(picture: Image.Image, scene: Scene, annotators: int) -> None:
    width, height = picture.size
    artist = ImageDraw.Draw(picture)
    line = max(1, round(height / 160))

    def pixels(*values: float) -> list[float]:
        return [value * (width, height)[k % 2] for k, value in enumerate(values)]

    artist.rectangle(pixels(*scene.salient_box), outline=(250, 190, 40), width=line)
    for person in scene.people:
        colour = SUBSET_COLOURS[person.subset]
        artist.rectangle(pixels(*person.head), outline=colour, width=line)
        for point in annotate(scene, person, annotators):
            artist.circle(pixels(*point), 1.2 * line, fill=colour, outline="white")
        x0, y0, x1, y1 = arrow = pixels(*person.eye, *person.gaze)
        artist.line(arrow, fill=colour, width=line)
        angle, length = math.atan2(y1 - y0, x1 - x0), 5 * line
        barbs = [(x1 - length * math.cos(angle + side), y1 - length * math.sin(angle + side)) for side in (-0.45, 0.45)]
        artist.polygon([(x1, y1), *barbs], fill=colour)
