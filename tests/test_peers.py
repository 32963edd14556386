"""Methods that others published, against outputs of their official code, with weights and inputs filled by a rule."""

import hashlib
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from gazebench.core.errors import DataError, ImageError
from gazebench.core.weights import WeightsError, read_weights
from gazebench.data.datamodule import ImageSamples, collate
from gazebench.data.images import load_depth
from gazebench.data.transforms import HeadCrops, gaussian_heatmap
from gazebench.engine.model import GazeModel
from gazebench.engine.registry import load_dataset
from gazebench.methods.chong import Chong
from gazebench.methods.chong.network import ChongNet, Steps
from gazebench.methods.pdp import PDP
from gazebench.methods.pdp.network import Answer as Patches
from gazebench.methods.pdp.network import PDPNet, divergence, patch_distribution
from gazebench.methods.sharingan import Sharingan
from gazebench.methods.sharingan.network import Answer, SharinganNet, positions
from gazebench.metrics.decode import argmax_plus_one
from gazebench.nn.scene_face import head_maps

DATA = Path(__file__).parent / "data"
RELU = F.relu
OUTPUTS = ("heatmap", "attention", "inout_logit")


def generator(name):
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") % 2**63
    return torch.Generator().manual_seed(seed)


def uniform(name, shape, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(shape, generator=generator(f"input:{name}"))


def fill(network):
    """Weights by their official names alone; the golden outputs were computed with these."""
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if torch.is_floating_point(value):
                n = torch.randn(value.shape, generator=generator(name))
                if name.endswith("running_var"):
                    n = 1 + 0.1 * n.abs()
                elif value.ndim >= 2:
                    n = n / (value.numel() / value.shape[0]) ** 0.5
                else:
                    n = 0.1 * n + (1.0 if name.endswith("weight") else 0.0)
                value.copy_(n)
    return network.eval()


@torch.no_grad()
def run(network, wanted, *inputs):
    """The network's answer, and of each wanted (module, slices, function) what the module gave."""
    seen, hooks = {}, []
    for key, (module, cut, change) in wanted.items():
        hook = lambda _, __, out, key=key, cut=cut, change=change: seen.update({key: change(out)[cut]})  # noqa: E731
        hooks.append(network.get_submodule(module).register_forward_hook(hook))
    answer = network(*inputs)
    for each in hooks:
        each.remove()
    return answer, seen


def same(found, golden, atol=2e-5):
    torch.testing.assert_close(found, torch.from_numpy(golden), rtol=1e-4, atol=atol)


def every(channels, stride=1):
    return (slice(None), slice(channels), slice(None, None, stride), slice(None, None, stride))


def plain(value):
    return value


@pytest.fixture(scope="module")
def chong():
    return np.load(DATA / "chong.npz")


def trunks(channels, first):
    """Stages that all networks of this build have."""
    return {
        "scene_layer5": ("layer5_scene", every(channels), plain),
        "face_layer5": ("layer5_face", every(channels), plain),
        "attn_logits": ("attn", (), plain),
        "encoding": ("compress_bn2", every(first), RELU),
        "deconv1": ("deconv1", every(first, 3), plain),
    }


def test_chong_on_pictures_is_the_official_network(chong):
    network = fill(ChongNet())
    boxes = torch.from_numpy(chong["head_map/boxes"])
    maps = head_maps(boxes[:, :4].double(), boxes[:, 4:], 224)
    assert torch.equal(maps[:, 0], torch.from_numpy(chong["head_map/maps"]).float())
    pictures, faces = (uniform(f"chong/{name}", (n, 3, 224, 224), -2, 2) for name, n in (("images", 2), ("faces", 3)))
    stages = {
        **trunks(16, 16),
        "scene_stem": ("bn1_scene", every(8, 14), RELU),
        "scene_layer1": ("layer1_scene", every(8, 7), plain),
        "scene_layer2": ("layer2_scene", every(8, 4), plain),
        "inout_map_before_relu": ("compress_bn2_inout", (), plain),
        "deconv1": ("deconv1", every(8, 3), plain),
        "deconv2": ("deconv2", every(8, 5), plain),
        "deconv3": ("deconv3", every(8, 4), plain),
    }
    # The last row has no head map.
    row, maps, faces = torch.tensor([0, 0, 1, 0]), torch.cat([maps[:3], maps[:1] * 0]), faces[[0, 1, 2, 0]]
    answer, seen = run(network, stages, pictures, row, maps, faces)
    for key, value in seen.items():
        same(value[:3], chong[f"spatial/{key}"])
    whole = {key: np.concatenate([chong[f"spatial/{key}"], chong[f"spatial/empty_head/{key}"]]) for key in OUTPUTS}
    same(answer.heatmap[:, None], whole["heatmap"], 2e-7)
    same(answer.attention, whole["attention"], 1e-6)
    same(answer.inout[:, None], whole["inout_logit"], 5e-6)
    # The last ReLU hides the branch unless its bias is larger.
    revived = network.fc_inout(F.relu(seen["inout_map_before_relu"][:3] + 0.6).flatten(1))
    same(revived.detach(), chong["spatial/revived/inout_logit"], 5e-6)


def test_chong_on_clips_is_the_official_network(chong):
    network = fill(ChongNet(temporal=True))
    rows, lengths = [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2), (0, 3), (0, 4)], (5, 3)
    clips = [
        [uniform(f"chong/clip_{name}/{what}", (length, 3, 224, 224), -2, 2) for what in ("images", "faces")]
        for name, length in zip("ab", lengths, strict=True)
    ]
    pictures, faces = (torch.stack([clips[clip][what][frame] for clip, frame in rows]) for what in (0, 1))
    starts = torch.tensor([[100.0, 50, 180, 150], [560, 300, 650, 370]])
    moves = torch.tensor([[20.0, 5, 20, 5], [10, 0, 10, 0]])
    boxes = torch.stack([starts[clip] + frame * moves[clip] for clip, frame in rows])
    maps = head_maps(boxes.double(), torch.tensor([[640, 360]]).expand(8, 2), 224)
    sequence, step = torch.tensor(rows).unbind(1)
    empty = torch.zeros(2, 2, 512, 7, 7)
    stages = {
        **trunks(8, 8),
        "scene_layer1": ("layer1_scene", every(8, 14), plain),
        "inout_map_before_relu": ("compress_bn2_inout", (), plain),
        "whole": ("compress_bn2", (), RELU),
    }
    answer, seen = run(network, stages, pictures, torch.arange(8), maps, faces, Steps(sequence, step, (empty, empty)))
    encoding = seen.pop("whole")
    for key, value in seen.items():
        same(value, chong[f"temporal/{key}"])
    same(answer.heatmap[:, None], chong["temporal/heatmap"], 2e-7)
    same(answer.inout[:, None], chong["temporal/inout_logit"], 5e-6)
    for state, name in zip(answer.state, ("h", "c"), strict=True):
        same(state[:, :, :16], chong[f"temporal/hidden_{name}"], 5e-6)
    given = [uniform(f"chong/hidden_{name}", (2, 2, 512, 7, 7), -high, high) for name, high in (("h", 1), ("c", 2))]
    with torch.no_grad():
        later, state = network.convlstm_scene(encoding[:4], Steps(sequence[:4], step[:4], tuple(given)))
        same(network.decoded(later)[:, None], chong["temporal/from_state/heatmap"], 2e-7)
        same(state[0][:, :, :16], chong["temporal/from_state/hidden_h"], 5e-6)
        network.skip_norms_of_one = True
        alone = network(pictures[:1], torch.arange(1), maps[:1], faces[:1])
    same(alone.heatmap[:, None], chong["temporal/single_frame/heatmap"], 2e-7)
    same(alone.inout[:, None], chong["temporal/single_frame/inout_logit"], 5e-6)
    same(alone.state[0][:, :, :16], chong["temporal/single_frame/hidden_h"], 5e-6)


@pytest.mark.parametrize(("around", "differ"), [("window", []), ("cell", [1, 2, 3, 4, 9])])
def test_target_maps_of_chong(chong, around, differ):
    """Gaze-LLE's rule differs near the left and upper border, where the official cut towards zero goes up."""
    points = torch.tensor([0.5, 0.5, 0.123, 0.456, 0.01, 0.02, 0.07, 0.3, 0.1406, 0.1407, 0, 0, 0.999, 0.5, 1, 1, 0.86,
                          0.92, -0.05, 0.5, 1.1, 0.5, 1.2, 0.5, -0.2, 0.5], dtype=torch.float64)  # fmt: skip
    found = gaussian_heatmap(points.view(-1, 2), around=around)
    assert differ == [i for i in range(13) if not np.allclose(found[i], chong["target/maps"][i], atol=1e-6)]


def test_faces_and_head_maps_are_those_of_the_official_loader(chong):
    picture = photo("chong/photo", 300, 421)
    head = torch.tensor([[-6, 210, 60, 305], [120, 40, 187, 125]], dtype=torch.float64)
    sizes = torch.tensor([[421, 300]]).expand(2, 2)
    crops = HeadCrops(224, 0.1, 0.11)
    faces = crops.cut(picture, head / torch.tensor([421, 300, 421, 300]))
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for person in range(2):
        official = torch.from_numpy(chong[f"gazefollow/test{person}/face"]) * deviation.view(3, 1, 1)
        levels = (official + mean.view(3, 1, 1)) * 255
        assert (faces[person, :, ::4, ::4].float() - levels).abs().max() < 1.01, person  # another resizing of uint8
    maps = head_maps(crops.boxes(head / torch.tensor([421, 300, 421, 300]), sizes), sizes, 224)
    for person in range(2):
        assert torch.equal(maps[person, 0], torch.from_numpy(chong[f"gazefollow/test{person}/head_map"]).float())
    assert crops.cut(picture, torch.tensor([[torch.nan] * 4, [1.2, 0.1, 1.5, 0.4]], dtype=torch.float64)).max() == 0


def photo(name, height, width):
    """The drawn picture that the official loaders read: (3, H, W) uint8."""
    coarse = uniform(name, (1, 3, height // 8 + 2, width // 8 + 2))
    coarse = F.interpolate(coarse, scale_factor=8, mode="nearest")[0, :, :height, :width]
    fine = uniform(f"{name}/fine", (3, height, width))
    return ((0.7 * coarse + 0.3 * fine) * 256).floor().clamp(0, 255).to(torch.uint8)


SMALL_CHONG = {"width": 2, "blocks": (1, 1, 1, 1, 1), "side": 64}
SMALL_SHARINGAN = {"width": 16, "depth": 4, "heads": 2, "decoder_width": 32, "channels": 2, "side": 64}


@pytest.mark.parametrize(
    ("method", "prefix", "form", "lost"),
    [
        (partial(Chong, **SMALL_CHONG), "", "model", "attn.weight"),
        (partial(Chong, **SMALL_CHONG), "", "", "attn.weight"),
        (partial(Sharingan, **SMALL_SHARINGAN), "model.", "state_dict", "encoder.global_tokens"),
        (partial(PDP, depth=False, **SMALL_CHONG), "module.", "state_dict", "qkv_proj.bias"),
    ],
)
def test_official_checkpoints_load_by_name(method, prefix, form, lost, tmp_path):
    official = {name: value.clone() for name, value in fill(method().network).state_dict().items()}
    method = method()
    stored = {f"{prefix}{name}": value for name, value in official.items()}
    torch.save({form: stored} if form else stored, tmp_path / "official.pt")
    method.load_export(read_weights(tmp_path / "official.pt"))
    saved = method.export()
    assert saved.keys() == official.keys()
    assert all(torch.equal(saved[name], value) for name, value in official.items())
    with pytest.raises(WeightsError, match=re.escape(lost)):
        method.load_export({name: value for name, value in stored.items() if name != f"{prefix}{lost}"})


def test_batch_counters_may_be_missing_from_chongs_checkpoints():
    """PyTorch 0.4.0 wrote none."""
    method = Chong(**SMALL_CHONG)
    method.load_export({name: value for name, value in method.export().items() if "batches" not in name})


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (ChongNet, 771),
        (partial(ChongNet, temporal=True), 959),
        (SharinganNet, 444),
        (PDPNet, 768),
        (partial(PDPNet, temporal=True), 781),
    ],
)
def test_number_of_entries_of_official_checkpoints(network, count):
    with torch.device("meta"):
        assert len(network().state_dict()) == count


@pytest.fixture(scope="module")
def pdp():
    return np.load(DATA / "pdp.npz")


@pytest.mark.parametrize(("case", "depth"), [("spatial", True), ("temporal_nodepth", False)])
def test_pdp_is_the_official_network(pdp, case, depth):
    clips = case.startswith("temporal")
    network = fill(PDPNet(depth, temporal=clips))
    stages = {
        **trunks(8, 8),
        "encoding": ("compress_bn2", every(4 if clips else 8), RELU),
        "deconv1": ("deconv1", every(4 if clips else 8, 3), plain),
    }
    if clips:
        stages = {key: value for key, value in stages.items() if "layer5" not in key} | {
            "temporal_mapping": ("temporal_mapping", (), plain),
            "temporal_weights": ("temporal_attention", (), lambda out: out[1]),
            "temporal_proj": ("temporal_proj_1", (slice(None), slice(None, None, 64)), plain),
            "temporal_norm": ("temporal_norm_1", (slice(None), slice(None, None, 64)), plain),
        }
        shape = (2, 5, 3, 224, 224)
        pictures, faces = (uniform(f"pdp/clips/{name}", shape, -2, 2)[0] for name in ("images", "faces"))
        start, move = torch.tensor([100.0, 50, 180, 150]), torch.tensor([20.0, 5, 20, 5])
        boxes, size = start + torch.arange(5)[:, None] * move, torch.tensor([[640, 360]])
        row, windows = torch.arange(5), torch.arange(5).expand(5, 5)
    else:
        stages |= {
            "scene_stem": ("bn1_scene", every(8, 14), RELU),
            "qkv": ("qkv_proj", (slice(None), slice(None, None, 7), slice(None, None, 96)), plain),
            "deconv_encode_before_relu": ("deconv_encode", every(8), plain),
            "deconv3": ("deconv3", (slice(None), slice(None), slice(None, None, 4), slice(None, None, 4)), plain),
        }
        pictures, faces = (uniform(f"pdp/{name}", (n, 3, 224, 224), -2, 2) for name, n in (("images", 2), ("faces", 3)))
        maps = uniform("pdp/depth", (2, 1, 224, 224))
        # The last picture has no depth, and the fourth person no head box.
        pictures = torch.cat([torch.cat([pictures, maps], 1), torch.cat([pictures[:1], maps[:1] * 0], 1)])
        boxes = torch.tensor([[200, 80, 320, 240], [-12.5, 300.2, 70.9, 500], [590.3, 2.7, 640, 31.9], [0] * 4,
                              [200, 80, 320, 240]])  # fmt: skip
        size, faces, row, windows = (
            torch.tensor([[640, 480]]),
            faces[[0, 1, 2, 0, 0]],
            torch.tensor([0, 0, 1, 0, 2]),
            None,
        )
    head_map = head_maps(boxes.double(), size.expand(len(boxes), 2), 224)
    answer, seen = run(network, stages, pictures, row, head_map, faces, windows)
    people = len(pdp[f"{case}/heatmap"])
    for key, value in seen.items():
        same(value[:people], pdp[f"{case}/{key}"], 1e-6 if key == "temporal_weights" else 2e-5)
    same(answer.heatmap[:people, None], pdp[f"{case}/heatmap"], 2e-7)
    same(answer.logits[:people], pdp[f"{case}/patch_logits"], 5e-6)
    same(answer.distribution[:people], pdp[f"{case}/patch_distribution"], 1e-6)
    for person, kind in () if clips else ((3, "empty_head"), (4, "zero_depth")):
        same(answer.heatmap[None, person : person + 1, ::4, ::4], pdp[f"spatial/{kind}/heatmap"], 2e-7)
        same(answer.logits[person : person + 1], pdp[f"spatial/{kind}/patch_logits"], 5e-6)


def test_pdps_targets_and_losses(pdp):
    maps, inside = (
        torch.from_numpy(pdp["gazefollow/train/target"]),
        torch.from_numpy(pdp["gazefollow/train/inside"]) > 0,
    )
    truth = gaussian_heatmap(torch.tensor([[0.61, 0.72], [0.93, 0.05], [0.985, 0.99], [0.03, 0.01]]), around="window")
    assert np.allclose(truth * inside[:, None, None], maps, atol=1e-6)
    target = patch_distribution(maps, inside, 7)
    assert np.allclose(target, pdp["loss/target_distribution"], rtol=1e-5, atol=1e-7)
    answer = Patches(uniform("pdp/loss/pred", (4, 64, 64), 0, 0.3), uniform("pdp/loss/patch_logits", (4, 50), -3, 3))
    assert np.allclose(answer.distribution, pdp["loss/predicted_distribution"], rtol=1e-5)
    found = [(answer.heatmap - maps).square().mean(), divergence(target, answer.distribution).mean()]
    assert np.allclose(found, pdp["loss/mse_and_kl"], rtol=1e-5)


def test_depth_maps_are_read_as_the_official_loader_does(pdp, tmp_path):
    coarse = uniform("pdp/photo/depth", (1, 1, 300 // 8 + 2, 421 // 8 + 2))
    whole = F.interpolate(coarse, scale_factor=8, mode="nearest")[0, 0, :300, :421]
    Image.fromarray((whole * 65535).floor().numpy().astype(np.uint16)).save(tmp_path / "depth.png")
    found = load_depth(tmp_path / "depth.png", (224, 224), (421, 300))
    assert np.allclose(found[::2, ::2], pdp["gazefollow/depth"], atol=1e-5)
    assert np.allclose(load_depth(tmp_path / "depth.png", (224, 224), (421, 300), flip=True), found[:, ::-1])
    with pytest.raises(ImageError, match=r"depth\.png.*421, 300"):
        load_depth(tmp_path / "depth.png", (224, 224), (300, 421))
    Image.fromarray(np.zeros((300, 421), np.uint8)).save(tmp_path / "grey.png")
    with pytest.raises(ImageError, match=r"grey\.png.*mode L"):
        load_depth(tmp_path / "grey.png", (224, 224), (421, 300))


def test_depth_reaches_the_network(tmp_path):
    dataset = load_dataset("gazefollow").fake(tmp_path / "data", people=4)
    records = dataset.records("test")
    method = PDP(width=2, blocks=(1, 1, 1, 1, 1), side=64).eval()
    with pytest.raises(DataError, match=r"no folder of depth maps.*gazefollow.*--dataset\.depth"):
        ImageSamples(dataset, records, method.preprocess())[0]
    for name, (width, height) in zip(records.images, records.sizes.tolist(), strict=True):
        file = (tmp_path / "depth" / str(name)).with_suffix(".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.linspace(0, 65535, width * height).reshape(height, width).astype(np.uint16)).save(file)
    dataset.depth = tmp_path / "depth"
    batch = collate([ImageSamples(dataset, records, method.preprocess())[image] for image in range(len(records))])
    assert batch.depth.shape == (len(records), 64, 64)
    near = method.predict_batch(batch).heatmap
    assert not torch.allclose(near, method.predict_batch(replace(batch, depth=batch.depth.flip(1))).heatmap)
    with pytest.raises(DataError, match=r"PDP.*depth"):
        GazeModel(method, device="cpu")


def test_heads_are_cut_for_single_pictures(tmp_path):
    """As for a data set: each of two people by themselves, and both in one picture."""
    method = Chong(**SMALL_CHONG).eval()
    picture, boxes = photo("single", 120, 160).permute(1, 2, 0).numpy(), np.array([[8, 6, 48, 60], [80, 30, 120, 90]])
    model = GazeModel(method, device="cpu")
    both = model.predict(picture, boxes).people
    alone = [model.predict(picture, boxes[[row]]).people[0] for row in range(2)]
    for one, other in zip(both, alone, strict=True):
        assert np.allclose(one.heatmap, other.heatmap, atol=1e-5)
    assert not np.allclose(both[0].heatmap, both[1].heatmap, atol=1e-3)


@pytest.fixture(scope="module")
def sharingan():
    return np.load(DATA / "sharingan.npz")


BOXES = {
    "a": [[0.40, 0.20, 0.55, 0.45]],
    "c": [[0] * 4, [0.05, 0.05, 0.15, 0.20], [0, 0, 0.18, 0.22], [0.70, 0.55, 0.95, 0.99]],
}
"""People of the golden cases; empty boxes fill places there, and are people to the network."""


def test_sharingan_is_the_official_network(sharingan):
    network = fill(SharinganNet())
    pictures, heads, boxes, row = [], [], [], []
    for case, people in BOXES.items():
        crops = uniform(f"sharingan.{case}.heads", (1, len(people), 3, 224, 224), -2, 2)[0]
        boxes.append(torch.tensor(people))
        heads.append(crops * (boxes[-1].sum(1) > 0)[:, None, None, None])
        row.append(torch.full((len(people),), len(pictures)))
        pictures.append(uniform(f"sharingan.{case}.image", (1, 3, 224, 224), -2, 2))
    wide = {"r32": 7, "r16": 14, "r8": 28, "r4": 56, "f32": 14, "f16": 28, "f8": 56, "f4": 112}
    stages = {
        "backbone": ("gaze_encoder.backbone", (slice(None), slice(32)), lambda out: out.flatten(1)),
        "gaze_token": ("gaze_encoder", (slice(None), slice(32)), lambda out: out[0]),
        "image_tokens": ("image_tokenizer", (slice(None), slice(None, None, 15), slice(16)), plain),
        "image_tokens_at_0_14_195": ("image_tokenizer", (slice(None), [0, 14, 195], slice(16)), plain),
        "head": ("heatmap_decoder.head", every(1, 4), plain),
        "io_block1": ("inout_decoder.block1", (slice(None), slice(32)), plain),
        **{
            f"block{block}_{kind}": (f"encoder.encoder.{block}", cut, change)
            for block in (0, 2, 11)
            for kind, cut, change in (
                ("img", (slice(None), slice(None, 196, 15), slice(16)), plain),
                ("person", (slice(None), slice(32)), lambda out: torch.cat([out[0, 196:197], out[1, 196:]])),
            )
        },
        **{
            name: (f"heatmap_decoder.{'reassemble' if name[0] == 'r' else 'fusion'}_blocks.{name}",
                   every(8, max(1, size // 7) if name[0] == "r" else size // 7), plain)
            for name, size in wide.items()
        },
    }  # fmt: skip
    # Two cases in one call: pictures with fewer people have empty places, which must not count.
    inputs = (torch.cat(pictures), torch.cat(row), torch.cat(heads), torch.cat(boxes).float())
    answer, seen = run(network, stages, *inputs)
    seen |= {"heatmap": answer.heatmap, "gaze_vec": answer.vector, "inout_logit": answer.inout[:, None]}
    both = ("heatmap", "gaze_vec", "inout_logit", "gaze_token")  # with an axis of people behind that of pictures
    for key, value in seen.items():
        cases = [sharingan[f"{case}.{key}"] for case in BOXES]
        cases = [each[0] for each in cases] if key in both or key.endswith("person") else cases
        golden = torch.from_numpy(np.concatenate(cases))
        assert value.squeeze(1).shape == golden.squeeze(1).shape, key
        assert (value.reshape(golden.shape) - golden).abs().max() < 1e-5 * golden.abs().max(), key
    points = argmax_plus_one(answer.heatmap)
    golden = np.concatenate([sharingan[f"{case}.point_plus1_over_64"].reshape(-1, 2) for case in BOXES])
    assert torch.equal(points, torch.from_numpy(golden))


def test_sharingans_inputs_and_targets(sharingan):
    assert np.allclose(positions(768, 14)[0, ::24], sharingan["posemb.full_slice"], atol=1e-5)
    found = gaussian_heatmap(torch.from_numpy(sharingan["hm.points"]), around="point")
    assert np.allclose(found, sharingan["hm.heatmaps"], atol=1e-5)
    pixels = torch.from_numpy(sharingan["pre.boxes"]).double()
    extent = torch.tensor([640, 480, 640, 480])
    sizes = extent[:2].expand(5, 2)
    for share in (0.1, 0.05):
        boxes = HeadCrops(224, share, share, square=True).boxes(pixels / extent, sizes)
        assert np.allclose(boxes, sharingan[f"pre.square{share}"], atol=2e-3)
        assert np.allclose((boxes / extent).clamp(0, 1), sharingan[f"pre.norm{share}"], atol=1e-5)
        assert np.array_equal(boxes.trunc().long(), sharingan[f"pre.crop{share}"])


def test_sharingans_losses(sharingan, monkeypatch):
    inside = torch.tensor([1, 1, 0, 1])
    shown, given = (F.normalize(uniform(f"sharingan.loss.{name}", (4, 2), -1, 1), dim=1) for name in ("vg", "vp"))
    method = Sharingan(**SMALL_SHARINGAN, inout_weight=10.0)
    answer = Answer(
        uniform("sharingan.loss.hm", (4, 64, 64), -0.2, 1.1), uniform("sharingan.loss.io", (4,), -2, 2), given
    )
    points = torch.from_numpy(sharingan["hm.points"][:4]).clone()
    # Boxes from which the points lie in the golden directions.
    centre = points - 0.01 * shown
    monkeypatch.setattr(method, "answer", lambda batch: (answer, torch.cat([centre, centre], dim=1)))
    batch = SimpleNamespace(targets=SimpleNamespace(inout=inside, point=points))
    found = method.loss(batch)
    heatmap, angle, bce, total = sharingan["loss.values"].tolist()
    assert found["heatmap"].item() == pytest.approx(1000 * heatmap, rel=1e-5)
    assert found["angle"].item() == pytest.approx(3 * angle, rel=1e-3)
    assert found["inout"].item() == pytest.approx(10 * bce, rel=1e-5)
    assert sum(found.values()).item() == pytest.approx(total, rel=1e-4)
