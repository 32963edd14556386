"""Time and memory of making questions at the scale of VL4Gaze.

python benchmarks/questions.py [PEOPLE]
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from gazebench.core.types import SOCIAL, Records, pairs_of, ragged_starts
from gazebench.datasets.gazefollow import GazeFollow
from gazebench.vqa import files
from gazebench.vqa.question_builder import BalancedQuestionBuilder


def annotations(people: int) -> Records:
    """Some people in three quarters as many images; a tenth look outside, all others have a category."""
    rng = np.random.default_rng(0)
    image = np.sort(rng.integers(0, max(1, people * 3 // 4), people))
    _, image = np.unique(image, return_inverse=True)
    low = rng.uniform(0, 0.8, (people, 2))
    inside = rng.random(people) < 0.9
    names = np.array([f"train/{index // 1000:08d}/{index:08d}.jpg" for index in range(image.max() + 1)])
    pairs = len(pairs_of(image))
    return Records(
        dataset="gazefollow",
        split="train",
        images=names,
        groups=names,
        person_id=np.array([f"{names[index]}#{person}" for person, index in enumerate(image)]),
        person_image=image.astype(np.int64),
        head=np.concatenate([low, low + 0.1], axis=1),
        points=rng.random((int(inside.sum()), 2)),
        point_start=ragged_starts(inside),
        inout=inside.astype(np.int8),
        columns={"label": np.where(inside, rng.choice(["cup", "ball", "person"], people), "")},
        pairs={name: rng.choice([0, 0, 1], pairs).astype(np.int8) for name in SOCIAL},
        sizes=np.tile([640, 480], (len(names), 1)),
    )


def peak() -> float:
    """Of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    records = annotations(int(sys.argv[1]) if len(sys.argv) > 1 else 138_000)
    dataset = GazeFollow(Path())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.jsonl"
        start, before = time.process_time(), peak()
        # Given descriptions are planned anew; plans from the data set's own may come from the cache.
        builder = BalancedQuestionBuilder(dataset, records, lambda image: dataset.descriptions(records, image))
        planned, seconds = peak(), time.process_time() - start
        counts = files.write(path, builder.everything(), {})["counts"]
        total = time.process_time() - start
        print(f"{counts['questions']:,} questions about {counts['people']:,} people in {counts['images']:,} images")
        each = 1e6 * total / counts["questions"]
        print(f"{total:.1f} s ({seconds:.1f} planning), {each:.0f} us a question, {path.stat().st_size / 1e6:.0f} MB")
        grown = f"+{planned - before:.0f} planning, +{peak() - planned:.0f} writing"
        print(f"peak memory: {before:.0f} MiB with annotations, {grown}")


if __name__ == "__main__":
    main()
