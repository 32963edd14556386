"""How far a result can be trusted: facts about data and weights, and the class that follows."""

import copy
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from gazebench.core import known_weights
from gazebench.core.errors import DataError
from gazebench.core.known_weights import KnownWeights, digests, known
from gazebench.datasets.gazehoi import GazeHOI
from gazebench.datasets.vat import VAT
from gazebench.datasets.vsgaze import VSGaze
from gazebench.engine import record, standing
from gazebench.engine.config import resolve
from gazebench.engine.contract import small_config
from gazebench.engine.run import Places, bench, prepare
from gazebench.engine.standing import Part
from gazebench.methods.gazelle import GazeLLE
from gazebench.nn.backbones import IMAGE_MEAN, IMAGE_STD

ROOT = Path(__file__).resolve().parent.parent
DINOV2_S = "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9"
VAT_LABELS = ROOT.parent / "shared" / "real" / "vat_labels"


@pytest.fixture(autouse=True)
def own_table(tmp_path, monkeypatch):
    monkeypatch.setenv("GAZEBENCH_CONFIG", str(tmp_path / "config"))


# Data ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def vat(tmp_path, monkeypatch):
    """A tiny copy whose counts and label digest are taken for the official ones."""
    data = VAT.fake(tmp_path / "vat", people=6)
    found = data.completeness("test").found
    monkeypatch.setattr(VAT, "card", replace(VAT.card, official={"test": dict(found)}))
    pinned = {"test": data.label_digest("test")}
    monkeypatch.setattr("gazebench.data.dataset._pinned_labels", lambda name: pinned)
    return data


def test_the_official_files_are_complete_by_digest(vat):
    found = vat.completeness("test")
    assert (found.state, found.by, found.defects) == ("complete", "digest", [])
    assert found.identity()["labels_sha256"] == vat.label_digest("test")


def test_a_changed_label_with_the_same_counts_is_not_official(vat):
    file = next((vat.root / "annotations" / "test").rglob("*.txt"))
    first, *others = file.read_text().splitlines()
    cells = first.split(",")
    cells[1] = str(int(cells[1]) - 1)  # xmin of the head box
    file.write_text("\n".join([",".join(cells), *others]) + "\n")
    changed = VAT(vat.root).completeness("test")
    assert changed.found == vat.completeness("test").found
    assert (changed.state, changed.by, len(changed.defects)) == ("partial", "digest", 1)


def test_other_line_ends_blanks_and_underscores_are_the_same_files(vat):
    digest = vat.label_digest("test")
    for file in (vat.root / "annotations" / "test").rglob("*.txt"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b",", b", ").replace(b"\n", b"\r\n\r\n"))
    for folder in ("annotations/test", "images"):
        for show in (vat.root / folder).iterdir():
            show.rename(show.with_name(show.name.replace(" ", "_")))
    assert VAT(vat.root).label_digest("test") == digest


@pytest.mark.skipif(not VAT_LABELS.is_dir(), reason="the real labels are not here")
def test_the_real_labels_have_the_pinned_digests(tmp_path):
    pinned = json.loads((ROOT / "splits" / "vat" / "labels.json").read_text())["sha256"]
    assert {split: VAT(VAT_LABELS).label_digest(split) for split in ("trainval", "test")} == pinned


@pytest.mark.parametrize("dataset", [GazeHOI, VSGaze])
def test_sets_without_published_counts_are_complete_by_their_own_list(tmp_path, dataset):
    data = dataset.fake(tmp_path, people=6)
    found = data.completeness("test")
    assert (found.state, found.by) == ("own list", "file list")
    data.path(data.records("test"), 0).unlink()
    assert dataset(tmp_path, missing_images="skip").completeness("test").state == "partial"


def test_vsgaze_with_other_parts_is_partial(tmp_path):
    VSGaze.fake(tmp_path, people=6)
    assert VSGaze(tmp_path, parts=("vat", "childplay")).completeness("test").state == "partial"


# Weights -------------------------------------------------------------------------------------------------------------


def test_the_package_s_table_has_whole_digests_or_the_prefix_in_the_file_s_name():
    entries = known_weights.packaged()
    assert known(DINOV2_S).name == "dinov2_vits14_pretrain.pth"
    assert len({entry.sha256 for entry in entries}) == len(entries)
    for entry in entries:
        assert len(entry.sha256) == 64 or f"-{entry.sha256}." in entry.name


def test_openai_s_clips_belong_to_quickgelu():
    openai = [entry for entry in known_weights.packaged() if "openaipublic" in entry.source]
    assert len(openai) == 9
    assert all(entry.clip == (f"{entry.name.removesuffix('.pt').removesuffix('px')}-quickgelu",) for entry in openai)
    assert all(f"/{entry.sha256}/" in entry.source for entry in openai)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.pt"
    path.write_bytes(b"weights")
    return path


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_unverified_until_it_is_added(file):
    assert standing.of_files("backbone", "b", sha256(file)).standing == "unverified"
    known_weights.add(KnownWeights("mine", sha256(file), "published"))
    part = standing.of_files("backbone", "b", sha256(file))
    assert (part.standing, part.by) == ("published", "user table")


def test_a_digest_of_the_package_s_table_is_published_and_cannot_be_called_own():
    part = standing.of_files("backbone", "b", DINOV2_S)
    assert (part.standing, part.by) == ("published", "digest")
    with pytest.raises(DataError, match="dinov2_vits14"):
        known_weights.add(KnownWeights("mine", DINOV2_S, "own"))


def test_of_several_files_all_must_be_known(tmp_path, file):
    for name in ("model-1", "model-2"):
        shutil.copy(file, tmp_path / f"{name}.safetensors")
    (tmp_path / "model-2.safetensors").write_bytes(b"others")
    both = digests(tmp_path)
    known_weights.add(KnownWeights("one", sha256(file)))
    assert standing.of_files("vlm", "v", both).standing == "unverified"
    known_weights.add(KnownWeights("two", both.split("+")[1], "own"))
    assert standing.of_files("vlm", "v", both).standing == "own"


def test_weights_of_a_run_are_known_by_its_record(tmp_path, file):
    record = {"run": "0123456789", "status": {"class": "official"}, "weights": {"trained": {"sha256": sha256(file)}}}
    path = tmp_path / "boards" / "vat" / "gazelle-0123456789.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record))
    expected = Part("initial", "mine.pt", "own", "record", sha256(file), "0123456789", "official")
    assert standing.of_files("initial", "mine.pt", sha256(file), [tmp_path / "boards"]) == expected
    file.write_bytes(b"changed")
    assert standing.of_files("initial", "mine.pt", sha256(file), [tmp_path / "boards"]).standing == "unverified"


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"grade": "none", "name": ""}, []),
        ({"grade": "published", "name": "b"}, [("backbone", "published")]),
        ({"grade": "file", "name": "b"}, [("backbone", "unverified")]),
        ({"grade": "random", "name": "b", "backbone": {"weights": "random"}}, [("backbone", "random")]),
        ({"grade": "none", "name": "b", "backbone": {"weights": "random"}}, []),
        (
            {"grade": "file", "name": "b", "backbone": {"weights": f"sha256:{DINOV2_S}"},
             "head_encoder": {"net": "resnet18", "weights": f"sha256:{'0' * 64}"}},
            [("backbone", "published"), ("head_encoder", "unverified")],
        ),
        (
            {"grade": "embedded", "name": "tiny", "backbone": {"weights": "embedded"}, "head_encoder": None},
            [("backbone", "own")],
        ),
        (
            {"grade": "published", "name": "b", "initial": {"file": "w.pt", "sha256": "1" * 64, "class": None}},
            [("backbone", "published"), ("initial", "unverified")],
        ),
    ],
)  # fmt: skip
def test_parts(weights, expected):
    found = list(standing.parts(weights, "bench"))
    assert [(part.part, part.standing) for part in found] == expected
    # The least of them is what can be said of all.
    order = ["random", "unverified", "own", "published"]
    assert standing.lowest(found) == min((one for _, one in expected), key=order.index, default="none")


def test_a_fetched_file_of_a_published_address_is_published_by_name(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(GazeLLE, "load_initial", lambda self, path: None)
    name, published = next(iter(GazeLLE.published.items()))
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / f"{name}.pt"
    file.write_bytes(b"as if it had been fetched")
    shutil.copy(file, tmp_path)
    for init, expected in ((published.url, "published"), (str(tmp_path / f"{name}.pt"), "unverified")):
        run = prepare(small_config("gazelle", "gazeworld", f"--init={init}"), Places(tmp_path / "r", tmp_path / "b"))
        *_, part = standing.parts(run.method.weights_identity() | {"initial": run.initial}, "bench")
        assert (part.part, part.standing, part.sha256) == ("initial", expected, sha256(file))


# The class -----------------------------------------------------------------------------------------------------------

COMPLETE = {"state": "complete", "by": "digest", "defects": []}
OWN_LIST = COMPLETE | {"state": "own list"}
IDENTITY = {"synthetic": False, "subsets": None, "completeness": COMPLETE}
MADE = {"data": {"train": None}, "skipped_images": [], "code": {"dirty": False}}
PUBLISHED = Part("backbone", "b", "published", "digest")
OWN = Part("initial", "weights.pt", "own", "record", run="r", run_class="official")


@pytest.mark.parametrize(
    ("changes", "parts", "expected"),
    [
        ({}, [], "official"),
        ({}, [PUBLISHED, OWN], "official"),
        ({"completeness": OWN_LIST}, [PUBLISHED], "listed"),
        ({"completeness": {**COMPLETE, "state": "partial", "defects": ["1 of 2 people"]}}, [PUBLISHED], "smoke"),
        ({}, [PUBLISHED, replace(OWN, run_class="smoke")], "smoke"),
        ({}, [PUBLISHED, replace(OWN, run_class="unverified")], "unverified"),
        ({}, [replace(PUBLISHED, standing="unverified")], "unverified"),
        ({"completeness": OWN_LIST}, [replace(PUBLISHED, standing="unverified")], "unverified"),
        ({}, [replace(PUBLISHED, standing="random")], "smoke"),
        ({}, [replace(PUBLISHED, standing="own", by="embedded")], "smoke"),
        ({"synthetic": True}, [replace(PUBLISHED, standing="own", by="embedded")], "synthetic"),
        ({}, [Part("predictions", "", "unverified")], "unverified"),
    ],
)
def test_the_class_follows_from_the_facts(changes, parts, expected):
    found = standing.status(IDENTITY | changes, MADE, "eval", parts)
    assert found["class"] == expected
    assert bool(found["reasons"]) == (expected in ("smoke", "unverified"))


@pytest.fixture
def clean(monkeypatch):
    """Runs whose code counts as committed."""
    code = record.code_identity() | {"dirty": False}
    monkeypatch.setattr(record, "code_identity", lambda: code)


def test_own_weights_of_an_official_run_make_an_official_run(vat, tmp_path, clean, monkeypatch):
    """On data that are complete; a backbone from a file is unverified until its digest is known."""
    places, file = Places(tmp_path / "runs", tmp_path / "boards"), tmp_path / "backbone.pth"
    vit = timm.models.VisionTransformer(img_size=28, patch_size=14, embed_dim=48, depth=1, num_heads=3, num_classes=0)
    torch.save(vit.state_dict(), file)
    vit.pretrained_cfg = {"mean": IMAGE_MEAN, "std": IMAGE_STD}
    monkeypatch.setattr("gazebench.nn.backbones.architecture", lambda _: copy.deepcopy(vit))
    small = ["--model.image_size=28", "--model.dim=16", "--model.layers=1", "--model.heads=2", "--model.lr_inout=1e-3"]
    data = [f"--dataset.root={vat.root}", "--loader.workers=0", "--init=none", "--trainer.accelerator=cpu"]

    def run(*options, weights=None):
        return bench(resolve(["gazelle", "vat", *data, *small, *options]), places, weights=weights)

    file_given = f"--model.backbone_weights={file}"
    doubtful = run(file_given, "--trainer.max_epochs=1").record
    assert (doubtful["status"]["class"], doubtful["weights"]["standing"]) == ("unverified", "unverified")
    known_weights.add(KnownWeights("dinov2 of my own", sha256(file), "own"))
    official = run(file_given, "--trainer.max_epochs=1", "--seed=1")
    assert official.record["status"] == {"class": "official", "reasons": []}
    moved = shutil.copy(official.folder / "weights.pt", tmp_path / "moved.pt")
    again = run(file_given, weights=Path(moved)).record
    (initial,) = (part for part in again["weights"]["parts"] if part["part"] == "initial")
    assert (initial["standing"], initial["by"], initial["run_class"]) == ("own", "record", "official")
    assert again["status"] == {"class": "official", "reasons": []}


def test_records_before_schema_3_have_a_flag():
    assert standing.completeness({"complete": True, "official": {"people": 1}})["state"] == "complete"
    assert standing.completeness({"complete": False, "official": {}})["state"] == "partial"
