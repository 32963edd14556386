"""Golden scores: predictions made by a rule, written to a file and scored, give the numbers of ``data/scores.json``.

They were computed by the code before it was rebuilt (but for VSGaze's questions, which it did not ask). A protocol or
data set whose numbers change on purpose raises its version, and this module, run as a script, makes the file anew.
"""

import hashlib
import json
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gazebench.core.types import pairs_of
from gazebench.engine.registry import entries, load_dataset, tasks
from gazebench.engine.score import score

FILE = Path(__file__).parent / "data" / "scores.json"
GOLDEN = json.loads(FILE.read_text(encoding="utf-8"))
REAL = Path(__file__).resolve().parents[2] / "shared" / "real"
REAL_SETS = {"gazefollow-real": "gazefollow", "vat-real": "videoattentiontarget"}
JUNK = ("", "I cannot tell.", "(500, 500)", "left", "a red ball", "nobody", "top-right", '{"point_2d": [120, 880]}')
GRID = (np.arange(64) + 0.5) / 64


# The rule: answers follow from ids and truths alone, often right --------------------------------------------------


def rng_of(text):
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"))


def heatmap_score_label(person_id, points, inout, label):
    """A noisy bump near the target (64, 64), a score of being in frame, and a category."""
    rng = rng_of(person_id)
    target = points.mean(0) if len(points) else np.array([0.5, 0.5])
    x, y = target + 0.12 * (rng.random(2) * 2 - 1)
    noise = rng.random((64, 64))
    bump = np.exp(-((GRID[None, :] - x) ** 2 + (GRID[:, None] - y) ** 2) / (2 * 0.07**2))
    in_frame = 0.5 * rng.random() + 0.5 * (inout == 1) * rng.random()
    return (0.8 * bump + 0.2 * noise).astype("<f4"), in_frame, label if rng.random() < 0.6 else "thing"


def pair_score(name, looker, other, label):
    rng = rng_of(f"{name} {looker} {other}")
    return 0.5 * rng.random() + 0.5 * (label == 1) * rng.random()


def answer(question, right):
    rng = rng_of(question)
    return right if rng.random() < 0.55 else JUNK[int(rng.random() * len(JUNK))]


def write_predictions(dataset, path):
    """A predictions file about everybody of the test split."""
    records = dataset.records("test")
    ids = records.person_id.astype(str).tolist()
    labels = records.columns.get("label", np.full(records.people, "")).astype(str)
    rows = [
        heatmap_score_label(person, records.points_of(p), records.inout[p], labels[p]) for p, person in enumerate(ids)
    ]
    columns = {
        "person_id": ids,
        "heatmap": [heatmap.tobytes() for heatmap, _, _ in rows],
        "heatmap_h": [64] * len(ids),
        "heatmap_w": [64] * len(ids),
        "inout": [in_frame for _, in_frame, _ in rows],
    }
    if "label" in records.columns:
        columns["label"] = [label for _, _, label in rows]
    for name, truth in records.pairs.items():
        scores = [{} for _ in ids]
        for (i, j), label in zip(pairs_of(records.person_image).tolist(), truth.tolist(), strict=True):
            scores[j][ids[i]] = pair_score(name, ids[j], ids[i], label)
        columns[name] = [json.dumps(each) for each in scores]
    items, truths = tasks()["questions"].source(dataset, records).of_images(records, np.arange(len(records)))
    answers = [{} for _ in ids]
    for item, truth in zip(items, truths, strict=True):
        answers[item.person][item.id] = answer(item.id, truth.answer)
    columns["questions"] = [json.dumps(each) for each in answers]
    pq.write_table(pa.table(columns), path)
    return path


def opened(name, folder):
    """The data set of an entry: GazeWorld, a fake below ``folder``, or a real mini-set."""
    if name in REAL_SETS:
        cls = load_dataset(name.removesuffix("-real"))
        return cls(root=REAL / REAL_SETS[name], bad_rows="skip")
    cls = load_dataset(name)
    return cls(train=6, val=3, test=40) if name == "gazeworld" else cls.fake(folder, people=40, seed=1)


def measured(dataset, folder):
    """What is kept of a data set and of its scores."""
    records = dataset.records("test")
    metrics = score(write_predictions(dataset, folder / "mine.parquet"), dataset)["metrics"]
    return {
        "dataset": f"{dataset.card.name} version {dataset.version}",
        "protocol": dataset.protocol.id,
        "tasks": {"questions": tasks()["questions"].describe()["id"]},
        "people": records.people,
        "images": len(records),
        "fingerprints": {split: dataset.records(split).fingerprint() for split in ("train", "val", "test")},
        "scores": {
            name: {
                subset: [found[key] for key in ("value", "count", "low", "high") if key in found]
                for subset, found in subsets.items()
            }
            for name, subsets in metrics.items()
        },
    }


@pytest.mark.parametrize("name", GOLDEN)
def test_scores_are_the_golden_ones(name, tmp_path):
    if name in REAL_SETS and not REAL.is_dir():
        pytest.skip("the real mini-sets are not beside the checkout")
    golden, found = GOLDEN[name], measured(opened(name, tmp_path / "data"), tmp_path)
    remedy = f"changed: raise the version of what computes it, name it in the changelog, make {FILE.name} anew"
    for key in sorted(golden.keys() - {"scores"}):
        assert found[key] == golden[key], f"{key} of {golden['dataset']} {remedy}"
    assert found["scores"].keys() == golden["scores"].keys(), f"the metrics of {golden['protocol']} {remedy}"
    for metric, subsets in golden["scores"].items():
        assert found["scores"][metric].keys() == subsets.keys(), metric
        for subset, values in subsets.items():
            message = f"{metric} ({subset}) of {golden['protocol']} {remedy}"
            assert found["scores"][metric][subset] == pytest.approx(values, abs=1e-12, rel=0), message


def test_every_data_set_of_ours_has_golden_scores():
    assert {name for name, entry in entries("datasets").items() if entry.ours} <= GOLDEN.keys()


if __name__ == "__main__":
    for entry in [*GOLDEN, *sys.argv[1:]]:
        with tempfile.TemporaryDirectory() as place:
            GOLDEN[entry] = measured(opened(entry, Path(place) / "data"), Path(place))
    text = json.dumps(GOLDEN, indent=1, sort_keys=True)
    text = re.sub(r"\[[-+.e\d,\s]*\]", lambda numbers: " ".join(numbers[0].split()), text)  # numbers in a line
    FILE.write_text(text + "\n", encoding="utf-8")
