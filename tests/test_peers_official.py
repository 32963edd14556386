"""The rest of what the official codes of the peers give: loaders, evaluation, losses, and the networks' other variants.

Values are those of ``golden.npz`` of each method where they lie beside the checkout; ``test_peers.py`` has the others.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from test_peers import fill, photo, run, uniform
from test_peers import test_pdp_is_the_official_network as compare_pdp

from gazebench.data.datamodule import ImageSamples, fitted
from gazebench.data.images import load_depth
from gazebench.data.transforms import HeadCrops, Preprocess, gaussian_heatmap
from gazebench.datasets.vat import VAT
from gazebench.methods.chong import Chong
from gazebench.methods.chong.network import Answer
from gazebench.methods.pdp.network import patch_distribution
from gazebench.methods.sharingan.method import DEVIATION, MEAN
from gazebench.methods.sharingan.network import SharinganNet
from gazebench.metrics.decode import argmax_plus_one, argmax_point
from gazebench.metrics.spatial import auc_points, auc_rectangle, l2_to_mean, mean_l2, min_l2
from gazebench.nn.backbones import IMAGE_MEAN, IMAGE_STD
from gazebench.nn.scene_face import head_maps

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
DATA = Path(__file__).parent / "data"
FOLDERS = {"chong": "chong", "pdp": "miao_pdp", "sharingan": "sharingan"}
pytestmark = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="golden.npz of the official codes is not beside the checkout"
)

HERE = {
    "chong": {"gazefollow/image", "gazefollow/train0/target", "gazefollow/train1/target", "vat/targets", "vat/image_7",
              "eval/heatmaps", "eval/gazefollow_auc", "eval/gazefollow_min_dist", "eval/gazefollow_avg_dist",
              "eval/vat_points", "eval/vat_auc", "eval/vat_l2"},
    "pdp": {"gazefollow/image", "vat/rows", "vat/smoothed", "vat/head_maps", "vat/targets", "vat/gazes", "vat/inside",
            "vat/patch_maxima", "vat/head_coords", "vat/face_2", "vat/depth_2", "eval/heatmaps", "eval/gazefollow_auc",
            "eval/gazefollow_min_dist", "eval/gazefollow_avg_dist", "eval/vat_points", "eval/vat_auc", "eval/vat_l2",
            *(f"gazefollow/test{n}/{what}" for n in (0, 1)
              for what in ("face", "head_map", "target", "patch_maxima", "mean_gaze"))},
    "sharingan": {"pre.expand0.1", "pre.expand0.05", "pre.image_sum", "pre.image_uint8_slice", "pre.image_224_slice",
                  "pre.heads_224_slice", "argmax.out", "metric.gf_point", "metric.gf_dist_toavg_avg_min",
                  "metric.vat_dist"},
}  # fmt: skip
"""Keys that ``test_peers.py`` does not have and this module compares, beside the networks' variants."""
VARIANTS = ("spatial_nodepth/", "temporal/", "b.")
LEFT_OUT = {
    "spatial_nodepth/token_attention": "inside an expression; the queries, keys and values are compared",
    "temporal/legacy_inout_logit": "a branch without effect, which is not computed here",
    "vat/head_coords_second_read": "a fault of the official loader: boxes smoothed twice",
    "hm.multi": "a target for several points, which no recipe uses",
    "hm.binary": "the cells of the AUC below",
    "metric.gf_auc": "on 64 x 64 cells; the protocol's is at the picture's size",
    "metric.vat_auc": "its rectangle and mean are others than the protocol's",
}


@pytest.fixture(scope="module")
def golden():
    return {name: np.load(GOLDEN / folder / "golden.npz") for name, folder in FOLDERS.items()}


@pytest.mark.parametrize("name", FOLDERS)
def test_every_golden_array_is_compared_or_left_out_for_a_reason(golden, name):
    elsewhere = set(np.load(DATA / f"{name}.npz").files)
    rest = {key for key in golden[name].files if key not in elsewhere and not key.startswith(VARIANTS)}
    assert rest - LEFT_OUT.keys() == HERE[name]
    for key in elsewhere:
        assert np.array_equal(np.load(DATA / f"{name}.npz")[key], golden[name][key])


def levels(normalised, mean, deviation):
    """Grey levels of a normalised picture."""
    mean, deviation = (torch.tensor(each).view(3, 1, 1) for each in (mean, deviation))
    return (torch.from_numpy(normalised) * deviation + mean) * 255


def near(picture, normalised, mean=IMAGE_MEAN, deviation=IMAGE_STD):
    """Whether two resizings agree to a grey level."""
    return (picture.float() - levels(normalised, mean, deviation)).abs().max() < 1.01


@pytest.mark.parametrize("name", ["chong", "pdp"])
def test_pictures_of_gazefollow(golden, name):
    found, picture = golden[name], photo(f"{name}/photo", 300, 421).permute(1, 2, 0).numpy()
    crops, extent = HeadCrops(224, 0.1, 0.11), torch.tensor([421, 300, 421, 300], dtype=torch.float64)
    head = torch.tensor([[-6, 210, 60, 305], [120, 40, 187, 125]], dtype=torch.float64) / extent
    image, faces = fitted(picture, head.numpy(), Preprocess((224, 224), heads=crops))
    assert near(image[:, ::4, ::4], found["gazefollow/image"])
    sizes = torch.tensor([[421, 300]]).expand(2, 2)
    maps = head_maps(crops.boxes(head, sizes), sizes, 224)
    for person in range(2):
        assert near(faces[person, :, ::4, ::4], found[f"gazefollow/test{person}/face"])
        assert torch.equal(maps[person, 0], torch.from_numpy(found[f"gazefollow/test{person}/head_map"]).float())


def test_targets_of_gazefollow(golden):
    chong, pdp = golden["chong"], golden["pdp"]
    points = torch.tensor([[0.61, 0.72], [0.93, 0.05]])
    for number, map_ in enumerate(gaussian_heatmap(points, around="window")):
        official = torch.from_numpy(chong[f"gazefollow/train{number}/target"])
        # Of somebody out of frame the official map is empty, or counts for nothing.
        assert torch.allclose(map_, official, atol=1e-6) or not official.any()
    means = torch.tensor([[0.96, 0.035], [0.49, 0.51]])  # of the annotators
    maps = gaussian_heatmap(means, around="window")
    shares = patch_distribution(maps, torch.ones(2, dtype=torch.bool), 7)
    for person in range(2):
        assert np.allclose(means[person], pdp[f"gazefollow/test{person}/mean_gaze"], atol=1e-6)
        assert np.allclose(maps[person], pdp[f"gazefollow/test{person}/target"], atol=1e-5)
        maxima = pdp[f"gazefollow/test{person}/patch_maxima"]
        assert np.allclose(shares[person, :49], maxima / maxima.sum(), atol=1e-5)


@pytest.mark.parametrize(("name", "shown", "targets"), [("chong", 7, [0, 3, 6, 12, 13]), ("pdp", 2, range(5))])
def test_a_track_of_video_attention_target(golden, tmp_path, name, shown, targets):
    found = golden[name]
    rows = [
        f"{frame:03d}.png," + ",".join(f"{value:g}" for value in row) for frame, row in enumerate(found["vat/rows"])
    ]
    for frame in range(len(rows)):
        file = tmp_path / "images" / "Show" / "0_99" / f"{frame:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(f"{name}/clip/{frame}", 180, 320).permute(1, 2, 0).numpy()).save(file)
    labels = tmp_path / "annotations" / "test" / "Show" / "0_99" / "s00.txt"
    labels.parent.mkdir(parents=True)
    (tmp_path / "annotations" / "train").mkdir()
    labels.write_text("\n".join(rows) + "\n")
    dataset = VAT(tmp_path)
    records, inside = dataset.records("test"), found["vat/inside"] > 0
    extent = np.array([320, 180, 320, 180])
    assert np.allclose(records.head * extent, found["vat/smoothed"], atol=1e-3)
    assert np.array_equal(records.inout == 1, inside)
    assert np.allclose(records.points, found["vat/gazes"][inside], atol=1e-6)
    crops = HeadCrops(224)
    maps = head_maps(crops.boxes(torch.from_numpy(records.head), torch.from_numpy(records.sizes)),
                     torch.from_numpy(records.sizes), 224)  # fmt: skip
    assert np.array_equal(maps[:, 0], found["vat/head_maps"])
    sample = ImageSamples(dataset, records, Preprocess((224, 224), heads=crops))[shown]
    assert near(sample.heads[0, :, ::4, ::4], found[f"vat/face_{shown}"])
    truth = (
        gaussian_heatmap(torch.from_numpy(found["vat/gazes"]), around="window")
        * torch.from_numpy(inside)[:, None, None]
    )
    assert np.allclose(truth[list(targets)], found["vat/targets"], atol=1e-5)
    if name == "chong":
        assert near(sample.image[:, ::4, ::4], found["vat/image_7"])
        return
    assert np.allclose(found["vat/head_coords"], records.head, atol=1e-6)
    shares = patch_distribution(truth, torch.from_numpy(inside), 7)[:, :49]
    maxima = torch.from_numpy(found["vat/patch_maxima"])
    assert torch.allclose(shares * maxima.sum(1, keepdim=True), maxima, atol=1e-5)
    coarse = uniform("pdp/clip/2/depth", (1, 1, 180 // 8 + 2, 320 // 8 + 2))
    whole = F.interpolate(coarse, scale_factor=8, mode="nearest")[0, 0, :180, :320]
    Image.fromarray((whole * 65535).floor().numpy().astype(np.uint16)).save(tmp_path / "depth.png")
    assert np.allclose(
        load_depth(tmp_path / "depth.png", (224, 224), (320, 180))[::4, ::4], found["vat/depth_2"], atol=1e-5
    )


ANNOTATORS = ([(0.61, 0.72), (0.66, 0.70), (0.20, 0.11)], [(0.93, 0.05), (0.999, 0.02), (1, 0.5)], [(0.5, 0.5)],
              [(0.25, 0.75), (0.3, 0.8), (0.31, 0.79), (0.28, 0.7)])  # fmt: skip


@pytest.mark.parametrize(
    ("name", "sizes", "auc", "away"),
    [
        # By the sheet, with the protocol's resizing in place of skimage's.
        ("pdp", [(421, 300), (500, 333), (120, 200), (640, 50)], [0.431050, 0.520566, 0.592316, 0.618296], 2e-5),
        # Maps are rounded to 256 levels there.
        ("chong", [(421, 300), (500, 333), (120, 200), (64, 64)], None, 2e-3),
    ],
)
def test_evaluation_of_chong_and_pdp(golden, name, sizes, auc, away):
    found = golden[name]
    maps, points = torch.from_numpy(found["eval/heatmaps"]), torch.from_numpy(found["eval/vat_points"]).double()
    marked = torch.tensor([point for person in ANNOTATORS for point in person], dtype=torch.float64)
    owner = torch.repeat_interleave(torch.arange(4), torch.tensor([len(person) for person in ANNOTATORS]))
    predicted = argmax_point(maps)
    assert np.allclose(l2_to_mean(predicted, marked, owner)[0], found["eval/gazefollow_avg_dist"], atol=1e-5)
    assert np.allclose(min_l2(predicted, marked, owner)[0], found["eval/gazefollow_min_dist"], atol=1e-5)
    assert np.allclose(l2_to_mean(predicted, points, torch.arange(4))[0], found["eval/vat_l2"], atol=1e-5)
    areas = [auc_points(one, person, *size) for one, person, size in zip(maps, ANNOTATORS, sizes, strict=True)]
    assert np.allclose(areas, found["eval/gazefollow_auc"] if auc is None else auc, atol=away)
    assert np.allclose(areas, found["eval/gazefollow_auc"], atol=2e-3)
    # The official rectangle has one column and row more at the far border.
    near_border = auc_rectangle(maps, points)[0]
    assert np.allclose(near_border[[0, 1, 3]], found["eval/vat_auc"][[0, 1, 3]], atol=2e-3)


def test_losses_of_chong(golden, monkeypatch):
    method = Chong(width=2, blocks=(1, 1, 1, 1, 1))
    answer = Answer(
        uniform("chong/loss/pred", (4, 64, 64), 0, 0.3), None, uniform("chong/loss/logit", (4, 1), -2, 2)[:, 0]
    )
    monkeypatch.setattr(method, "answer", lambda batch: answer)
    points = torch.from_numpy(golden["chong"]["target/points"][:4])
    losses = method.loss(SimpleNamespace(targets=SimpleNamespace(inout=torch.tensor([1, 0, 1, 1]), point=points)))
    found = [losses["heatmap"].item(), losses["inout"].item()]
    assert np.allclose(found, golden["chong"]["loss/heatmap_and_inout"], rtol=1e-4)


def test_inputs_and_evaluation_of_sharingan(golden):
    found = golden["sharingan"]
    small = (uniform("sharingan.pre.image", (60, 80, 3)) * 255).round().numpy().astype(np.uint8)
    picture = np.asarray(Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC))
    assert abs(int(picture.sum()) - int(found["pre.image_sum"][0])) < picture.size
    assert np.abs(picture[::60, ::80].astype(int) - found["pre.image_uint8_slice"]).max() <= 1
    extent = torch.tensor([640, 480, 640, 480])
    head = torch.from_numpy(found["pre.boxes"]).double() / extent
    for share in (0.1, 0.05):
        widened = HeadCrops(224, share, share).boxes(head, extent[:2].expand(5, 2)).clamp(min=0).minimum(extent)
        assert np.allclose(widened, found[f"pre.expand{share}"], atol=2e-3)
    image, heads = fitted(picture, head.numpy(), Preprocess((224, 224), heads=HeadCrops(224, 0.1, 0.1, square=True)))
    assert near(image[:, ::16, ::16], found["pre.image_224_slice"], MEAN, DEVIATION)
    assert near(heads[:, :, ::16, ::16], found["pre.heads_224_slice"], MEAN, DEVIATION)
    tied = uniform("sharingan.argmax", (3, 64, 64))
    tied[1, 10, 20] = tied[1, 10, 21] = tied[1, 40, 3] = 2
    tied[2, 63, 63] = 3
    assert np.allclose(argmax_plus_one(tied), found["argmax.out"])
    marked, counts = uniform("sharingan.metric.gt", (3, 10, 2)), torch.tensor([10, 7, 1])
    points = torch.cat([person[:count] for person, count in zip(marked, counts, strict=True)]).double()
    owner = torch.repeat_interleave(torch.arange(3), counts)
    maps = uniform("sharingan.metric.hm", (3, 64, 64), -0.1, 1.2) + 3 * gaussian_heatmap(marked[:, 0], around="point")
    predicted = argmax_plus_one(maps)
    assert np.allclose(predicted, found["metric.gf_point"])
    distances = [metric(predicted, points, owner)[0].mean() for metric in (l2_to_mean, mean_l2, min_l2)]
    assert np.allclose(distances, found["metric.gf_dist_toavg_avg_min"], atol=1e-5)
    first = l2_to_mean(predicted, marked[:, 0].double(), torch.arange(3))[0]
    assert first[[0, 2]].mean().item() == pytest.approx(found["metric.vat_dist"].item(), abs=1e-5)


@pytest.mark.parametrize(("case", "depth"), [("spatial_nodepth", False), ("temporal", True)])
def test_the_other_two_networks_of_pdp(golden, case, depth):
    compare_pdp(golden["pdp"], case, depth)


def test_sharingan_with_two_pictures_and_padded_people(golden):
    """Padded people are people to the network, with empty boxes and crops."""
    found = golden["sharingan"]
    boxes = torch.tensor([[0.10, 0.10, 0.20, 0.25], [0.60, 0.05, 0.75, 0.30], [0.86, 0.70, 1, 1], [0] * 4,
                          [0, 0.30, 0.12, 0.52], [0.45, 0.40, 0.60, 0.62]])  # fmt: skip
    heads = uniform("sharingan.b.heads", (2, 3, 3, 224, 224), -2, 2).flatten(0, 1)
    heads = heads * (boxes.sum(1) > 0)[:, None, None, None]
    whole = (slice(None), slice(None, None, 1))
    stages = {
        "backbone": ("gaze_encoder.backbone", whole, lambda out: out.flatten(1)[:, :32]),
        "gaze_token": ("gaze_encoder", whole, lambda out: out[0].view(2, 3, -1)[..., :32]),
        "image_tokens": ("image_tokenizer", whole, lambda out: out[:, ::15, :16]),
        "image_tokens_at_0_14_195": ("image_tokenizer", whole, lambda out: out[:, [0, 14, 195], :16]),
        "head": ("heatmap_decoder.head", whole, lambda out: out[:, 0, ::4, ::4]),
        "io_block1": ("inout_decoder.block1", whole, lambda out: out[:, :32]),
    }
    for block in (0, 2, 11):
        stages[f"block{block}_img"] = (f"encoder.encoder.{block}", whole, lambda out: out[:, :196:15, :16])
        stages[f"block{block}_person"] = (f"encoder.encoder.{block}", whole, lambda out: out[:, 196:, :32])
    for factor, side in ((32, 7), (16, 14), (8, 28), (4, 56)):
        for kind, size in (("r", side), ("f", 2 * side)):
            part = f"heatmap_decoder.{'reassemble' if kind == 'r' else 'fusion'}_blocks.{kind}{factor}"
            step = max(1, size // 7)
            stages[f"{kind}{factor}"] = (part, whole, lambda out, step=step: out[:, :8, ::step, ::step])
    pictures = uniform("sharingan.b.image", (2, 3, 224, 224), -2, 2)
    answer, seen = run(fill(SharinganNet()), stages, pictures, torch.tensor([0, 0, 0, 1, 1, 1]), heads, boxes)
    seen |= {"heatmap": answer.heatmap, "gaze_vec": answer.vector, "inout_logit": answer.inout}
    assert {f"b.{key}" for key in seen} | {"b.point_plus1_over_64"} == {
        key for key in found.files if key.startswith("b.")
    }
    for key, value in seen.items():
        official = torch.from_numpy(found[f"b.{key}"])
        assert (value.reshape(official.shape) - official).abs().max() < 1e-5 * official.abs().max(), key
    assert np.allclose(argmax_plus_one(answer.heatmap).view(2, 3, 2), found["b.point_plus1_over_64"])
