"""To be deleted with ``gazebench.nn.qwen3vl._corpus``, its only user: the tokenizer is a file now."""

import json
from collections.abc import Iterator

from gazebench.datasets.gazeworld.catalogue import CATEGORIES, COLOURS
from gazebench.datasets.gazeworld.pretraining.grounding import DIRECTIONS
from gazebench.datasets.gazeworld.pretraining.patches import PLACES

NEAREST = "What is nearest to the head {box} in the direction {direction}?"
NEAREST_POINT = "Point at what is nearest to the head {box} in the direction {direction}."


def phrases() -> Iterator[str]:
    box = json.dumps({"bbox_2d": [0, 1, 2, 3]})
    for template in ("Point at the {name}.", "Locate the {name}.", "Is there a {name}?"):
        yield from (template.format(name=name) for name in CATEGORIES)
    for colour in COLOURS:
        yield from (f"Point at the {colour} {name}." for name in CATEGORIES)
        yield from (f"Locate the head of the person in {colour}.", colour)
    yield from (
        "What is at [0, 1]?", "What stands out?", "Locate what stands out.", "What place is it?", "Locate all heads.",
        f"What does the person with the head {box} wear?", f"[{box}, {box}]",
    )  # fmt: skip
    yield from (f"Where is the {name} as seen from the head {box}?" for name in CATEGORIES)
    for template in (NEAREST, NEAREST_POINT):
        yield from (template.format(direction=each, box=box) for each in DIRECTIONS)
    yield from (*DIRECTIONS, *PLACES, "yes", "no", json.dumps({"point_2d": [0, 1]}))
