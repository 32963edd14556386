"""Who looks at whom: the truth of every pair of people, which follows from what each of them looks at."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import numpy.typing as npt

from gazebench.datasets.gazeworld.world.scene import Scene


def social(scene: Scene) -> dict[str, npt.NDArray[np.int8]]:
    """(N,) 1 or 0 for each ordered pair (i, j) of people, in the order of ``itertools.permutations(people, 2)``.

    Returns:
        ``lah``: j looks at i's head. ``laeo``: they look at each other. ``sa``: both look at the same thing or head,
        of a third person then; an empty spot and what is outside the picture are shared with nobody.
    """
    pairs = list(permutations(scene.people, 2))
    labels = {
        "lah": [j.target_id == i.id for i, j in pairs],
        "laeo": [j.target_id == i.id and i.target_id == j.id for i, j in pairs],
        "sa": [i.target_id == j.target_id != 0 for i, j in pairs],
    }
    return {name: np.array(values, dtype=np.int8) for name, values in labels.items()}
