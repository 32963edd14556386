"""On all published labels of GazeFollow's test set and of VideoAttentionTarget, where they lie beside the checkout."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from gazebench.core.boxes import IntArray
from gazebench.core.types import IN_FRAME, Annotations
from gazebench.datasets.gazefollow import GazeFollow
from gazebench.datasets.vat import VAT
from gazebench.engine.contract import small_config
from gazebench.engine.predict import predict
from gazebench.engine.run import Places, prepare
from gazebench.engine.score import score
from gazebench.metrics.spatial import auc_points

REAL = Path(__file__).resolve().parents[2] / "shared" / "real"
LABELS = REAL / "gazefollow_test_labels"
TRACKS = REAL / "vat_labels" / "annotations"
PEOPLE = 4782

pytestmark = pytest.mark.skipif(
    not (LABELS.is_dir() and TRACKS.is_dir()), reason="the published labels are not beside the checkout"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """GazeFollow's test set: its labels, and a blank picture of the right size for each of its photographs."""
    folder = tmp_path_factory.mktemp("real") / "gazefollow"
    sizes = pd.read_csv(LABELS / "sizes.csv")
    for (width, height), paths in sizes.groupby(["width", "height"])["path"]:
        blank = None
        for path in paths:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            if blank is None:
                Image.new("L", (width, height)).save(folder / path, "JPEG", quality=1)
                blank = (folder / path).read_bytes()
            (folder / path).write_bytes(blank)
    shutil.copy(LABELS / "test_annotations_release.txt", folder)
    return folder


# AUC is left out but for the test below: it takes a minute to rank the pixels of 4,782 pictures.
@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (
            "center",
            {"avg_l2": 0.2949, "mean_l2": 0.3132, "min_l2": 0.2295, "avg_angle": 42.34, "mean_angle": 43.96,
             "min_angle": 31.19, "mean_angle_eye": 48.76},
        ),
        (
            "one_annotator",
            {"avg_l2": 0.0859, "mean_l2": 0.1087, "min_l2": 0.0365, "avg_angle": 9.03, "mean_angle": 11.35,
             "min_angle": 2.87, "mean_angle_eye": 12.77},
        ),
    ],
)  # fmt: skip
def test_the_table_of_the_baselines_in_the_protocols(root, tmp_path, method, expected):
    run = prepare(small_config(method, "gazefollow", f"--dataset.root={root}"), Places(tmp_path / "runs", tmp_path))
    predict(run)
    points = pq.read_table(run.folder / "predictions.parquet").drop_columns(["heatmap", "heatmap_h", "heatmap_w"])
    pq.write_table(points, tmp_path / "points.parquet")
    found = score(tmp_path / "points.parquet", run.dataset)["metrics"]
    assert {
        name: (round(one["all"]["value"], 4 if "l2" in name else 2), one["all"]["count"]) for name, one in found.items()
    } == {name: (value, PEOPLE) for name, value in expected.items()}


def test_the_auc_of_a_grid_of_5_by_5_cells(root):
    """That of a grid that falls with the distance from the centre is the published one; it is not resized."""
    records = GazeFollow(root).parse("test")
    centre = (np.arange(5) + 0.5) / 5 - 0.5
    falling = torch.from_numpy(-np.hypot(centre[:, None], centre[None]))
    middle = torch.zeros(5, 5)
    middle[2, 2] = 1
    for grid, expected in ((falling, 0.633), (middle, 0.521)):
        areas = [auc_points(grid, records.points_of(person), 5, 5) for person in range(records.people)]
        assert len(areas) == PEOPLE
        assert np.mean(areas) == pytest.approx(expected, abs=5e-4)


def usual_sizes(_, annotations: Annotations) -> IntArray:
    """(I, 2) for each show the smallest usual size of a film that holds its gaze points."""
    show = np.array([group.partition("/")[0] for group in annotations.groups])
    of_point = show[np.repeat(annotations.person_image, np.diff(annotations.point_start))]
    sizes = np.zeros((len(annotations), 2), dtype=np.int64)
    for one in np.unique(show):
        across, down = annotations.points[of_point == one].max(axis=0)
        sizes[show == one] = (
            next(width for width in (640, 800, 854, 1280, 1920) if width > across),
            next(height for height in (360, 448, 480, 534, 544, 640, 720, 800, 816, 1080) if height > down),
        )
    return sizes


def test_all_rows_of_video_attention_target(tmp_path, monkeypatch):
    """The pictures are not there, so nobody asks for them; in pictures of usual sizes no row is bad."""
    monkeypatch.setattr(VAT, "_image_sizes", usual_sizes)
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations").symlink_to(TRACKS)
    monkeypatch.setattr(VAT, "_present", lambda self, annotations: np.ones(len(annotations.images), dtype=bool))
    rows = 0
    for split, official in VAT.card.official.items():
        records = VAT(tmp_path).parse(split)
        found = {"images": len(records), "people": records.people, "in_frame": int((records.inout == IN_FRAME).sum())}
        assert found == official
        assert not records.issues
        rows += records.people
        beyond = records.head[:, 2:] > records.sizes[records.person_image]
        assert 0 < beyond.any(axis=1).sum() < 400, "boxes beyond the border are clipped"
    assert rows == 164_541
