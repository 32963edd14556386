"""Time and memory of making questions at the scale of VL4Gaze.

python benchmarks/questions.py [PEOPLE]
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from gazebench.core.types import Records, ragged_starts
from gazebench.datasets.gazefollow import GazeFollow
from gazebench.vqa import files
from gazebench.vqa.question_builder import QuestionBuilder


def annotations(people: int) -> Records:
    """Some people in three quarters as many images; a tenth look outside, all others have a category."""
    rng = np.random.default_rng(0)
    image = np.sort(rng.integers(0, max(1, people * 3 // 4), people))
    _, image = np.unique(image, return_inverse=True)
    low = rng.uniform(0, 0.8, (people, 2))
    inside = rng.random(people) < 0.9
    names = np.array([f"train/{index // 1000:08d}/{index:08d}.jpg" for index in range(image.max() + 1)])
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
        sizes=np.tile([640, 480], (len(names), 1)),
    )


def main() -> None:
    records = annotations(int(sys.argv[1]) if len(sys.argv) > 1 else 138_000)
    builder = QuestionBuilder(GazeFollow(Path()), records)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.jsonl"
        start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        counts = files.write(path, builder.everything(), {})["counts"]
        seconds = time.process_time() - start
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(f"{counts['questions']:,} questions about {counts['people']:,} people in {counts['images']:,} images")
        each = 1e6 * seconds / counts["questions"]
        print(f"{seconds:.1f} s, {each:.0f} us a question, {path.stat().st_size / 1e6:.0f} MB on disk")
        print(f"peak memory grew by {grown:.0f} MiB")


if __name__ == "__main__":
    main()
