"""Official weights, where a user has them: ``GAZEBENCH_WEIGHTS=FOLDER pytest tests/test_official_weights.py``.

The folder is the one of docs/backbones.md: publishers' files by their names, files of the Hugging Face hub as
owner/repository/file (with the repository's config.json for the comparison with transformers). With the picture
000000039769.jpg or .png of COCO in it features are compared with the values that transformers' own tests have. The
score of Gaze-LLE needs GazeFollow besides: ``GAZEBENCH_GAZEFOLLOW=FOLDER``.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from gazebench.core.files import file_digest
from gazebench.core.known_weights import known
from gazebench.core.weights import present
from gazebench.engine.config import resolve
from gazebench.engine.run import bench
from gazebench.methods.gazelle import GazeLLE
from gazebench.nn.backbones import BACKBONES, build_backbone

FOLDER = os.environ.get("GAZEBENCH_WEIGHTS", "")
GAZEFOLLOW = os.environ.get("GAZEBENCH_GAZEFOLLOW", "")
pytestmark = pytest.mark.skipif(not FOLDER, reason="GAZEBENCH_WEIGHTS names no folder with official weights")


def copies(name: str) -> dict[str, Path]:
    """The copies of a backbone's weights in the folder, by source."""
    found = {source: present(place) for source, place in BACKBONES[name].files.items()}
    here = {source: path for source, path in found.items() if path is not None and path.is_relative_to(FOLDER)}
    if not here:
        pytest.skip(f"{FOLDER} has none of {', '.join(BACKBONES[name].files.values())}")
    return here


@pytest.mark.parametrize("name", BACKBONES)
def test_all_copies_of_a_backbone_are_the_same(name):
    here = copies(name)
    for source in here.keys() & {"hub", "openai"}:
        assert known(file_digest(here[source])), f"{here[source]} is not its publisher's file"
    digests = {source: build_backbone(name, source=source).digest() for source in here}
    assert len(set(digests.values())) == 1, digests


@pytest.mark.parametrize("name", BACKBONES)
def test_features_are_transformers_own(name):
    """At the size of the learnt positions, where no rule of resampling enters."""
    here = copies(name)
    folder = here.get("transformers", Path(FOLDER, "nothing")).parent
    if not (folder / "config.json").is_file():
        pytest.skip(f"{FOLDER} has no {BACKBONES[name].files['transformers']} with its config.json")
    kind = transformers.AutoConfig.from_pretrained(folder).model_type
    towers = {"clip": "CLIPVisionModel", "siglip": "SiglipVisionModel"}
    theirs = getattr(transformers, towers.get(kind, "AutoModel")).from_pretrained(folder).eval()
    ours = build_backbone(name, source=next(iter(here)))
    side = int(theirs.config.image_size) // ours.patch_size * ours.patch_size
    images = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = theirs(pixel_values=(images / 255 - ours.image_mean) / ours.image_std).last_hidden_state
        expected = theirs.post_layernorm(expected) if kind == "clip" else expected
        features = ours(images).flatten(2).mT
    scale = features.std().item()
    torch.testing.assert_close(features, expected[:, ours.prefix_tokens :], atol=1e-3 * scale, rtol=1e-3)


PUBLISHED = {  # in transformers' tests of the two models
    "dinov2_vitb14_reg": (256, Image.Resampling.BICUBIC, [
        (0, [-0.4638, -1.4563, -0.0289]), (1, [-1.4736, -0.8866, 0.3005]), (2, [0.0720, -0.2406, -1.5943])]),
    "dinov3_vits16": (224, Image.Resampling.BILINEAR, [
        (0, [0.4637, -0.4160, 0.4086, -0.1265, -0.2865]), (5, [-0.0386, -0.2509, -0.0161, -0.4556, 0.5716])]),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_features_of_a_picture_are_the_published_ones(name):
    """Tokens of a crop of 224 x 224 pixels; other versions of the image library move its pixels by a level."""
    source = next(iter(copies(name)))
    picture = next((path for end in ("png", "jpg") if (path := Path(FOLDER, f"000000039769.{end}")).is_file()), None)
    if picture is None:
        pytest.skip(f"{FOLDER} has no 000000039769.jpg (COCO, val2017)")
    shortest, method, expected = PUBLISHED[name]
    image = Image.open(picture).convert("RGB")
    if name.startswith("dinov3"):
        image = image.resize((224, 224), method)
    else:
        scale = shortest / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), method)
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        image = image.crop((left, top, left + 224, top + 224))
    backbone = build_backbone(name, source=source)
    with torch.inference_mode():
        tokens = backbone.embed(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])
        rotary = backbone.rotary((224 // backbone.patch_size, 224 // backbone.patch_size))
        for index in range(len(backbone.blocks)):
            tokens = backbone.run_block(index, tokens, rotary)
        tokens = backbone.model.norm(tokens)
    for token, values in expected:
        torch.testing.assert_close(tokens[0, token, : len(values)], torch.tensor(values), atol=2e-2, rtol=0)


@pytest.mark.slow
@pytest.mark.skipif(not GAZEFOLLOW, reason="GAZEBENCH_GAZEFOLLOW names no folder of GazeFollow")
def test_gaze_lle_has_the_score_that_another_user_measured(places):
    """ViT-L on GazeFollow's test set: AUC .9584, average distance .0984, least distance .0411."""
    copies("dinov2_vitl14")
    weights = present(GazeLLE.published["gazelle_dinov2_vitl14"].url)
    if weights is None:
        pytest.skip(f"{FOLDER} has no gazelle_dinov2_vitl14.pt")
    data, model = f"--dataset.root={GAZEFOLLOW}", "--model.backbone=dinov2_vitl14"
    metrics = bench(resolve(["gazelle", "gazefollow", data, model]), places, weights=weights).record["metrics"]
    for metric, expected in (("auc", 0.9584), ("avg_l2", 0.0984), ("min_l2", 0.0411)):
        assert metrics[metric]["all"]["value"] == pytest.approx(expected, abs=0.001), metric
