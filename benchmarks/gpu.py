"""What a GPU does with the methods, in at most eight minutes: ``python benchmarks/gpu.py``.

Throughput, share of the card's bf16 peak, memory and agreement with the CPU of Gaze-LLE, HCLoRA and OmniGF with random
weights; whether the card waits for the loaders; and how long the evaluation of VideoAttentionTarget's size takes with
cached features. Every finished row is stored at once in ``FOLDER/CARD.json`` and ``FOLDER/CARD.md``, named after the
card. Each part is a process of its own with a share of the time; what does not fit, in time or memory, is a row that
says so, and the exit code is then 1. Without a GPU, or with ``--tiny``, everything runs at a toy size in one process.

Operations are counted by torch's FlopCounterMode (of what was asked for, so recomputation counts nothing).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate
from torch.utils.flop_counter import FlopCounterMode

from gazebench.core.files import write_atomically
from gazebench.core.types import Annotations, Batch, Records, Targets
from gazebench.data.datamodule import GazeDataModule
from gazebench.data.dataset import Card, GazeDataset
from gazebench.datasets.vat import VAT
from gazebench.engine.method import Method, total_loss
from gazebench.engine.record import processor
from gazebench.methods.gazelle import GazeLLE
from gazebench.methods.hclora import HCLoRA
from gazebench.methods.omnigf import OmniGF
from gazebench.metrics.spatial import auc_rectangle

PEAKS = (
    ("B200", 2250.0, "NVIDIA B200 datasheet"),
    ("H200", 989.4, "NVIDIA H200 datasheet, 1,979 with sparsity"),
    ("H100 NVL", 835.5, "NVIDIA H100 NVL datasheet, 1,671 with sparsity"),
    ("H100 PCIe", 756.0, "NVIDIA H100 datasheet, 1,513 with sparsity"),
    ("H100", 989.4, "NVIDIA H100 SXM datasheet, 1,979 with sparsity"),
    ("A100", 312.0, "NVIDIA A100 datasheet"),
    ("L40S", 362.0, "NVIDIA L40S datasheet"),
    ("RTX 4090", 165.2, "NVIDIA Ada architecture whitepaper, float32 accumulation"),
)
"""Dense bf16 peak in TFLOP/s by a part of the card's name, first match, with the source."""

SECONDS = {"gazelle": 75, "hclora": 110, "omnigf": 130, "loading": 60, "evaluation": 80}
"""For each part, its start included; together 455 of the 480 seconds."""
VAT_TEST = {"images": 13127, "people": 31978}
GOALS = {
    "peak": ("at least 50% of bf16 peak, ViT-L train step", 0.5, ("H100", "H200")),
    "idle": ("idle less than 5%, 640 x 480 pictures, 16 cores", 0.05, ("H100", "H200")),
    "evaluation": ("VideoAttentionTarget's test set in under 60 s, cached features", 60.0, ("H100", "H200")),
}
QWEN_4B = {
    "text_config": {
        "vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "rope_parameters": {
            "rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True},
    },
    "vision_config": {
        "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "patch_size": 16,
        "out_hidden_size": 2560, "num_position_embeddings": 2304, "deepstack_visual_indexes": [5, 11, 17],
    },
}  # fmt: skip
"""The published sizes of Qwen3-VL-4B; ids of special tokens stay those of the embedded tokenizer."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Setup:
    """Where and how large: ``end`` is the time by ``time.monotonic`` at which the part should be over."""

    device: torch.device
    tiny: bool
    end: float
    each: float = 3.0

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def sync(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    @property
    def peak(self) -> float | None:
        name = torch.cuda.get_device_name(self.device) if self.cuda else ""
        return next((peak * 1e12 for part, peak, _ in PEAKS if part in name), None)

    def autocast(self, precision: str) -> Any:
        return nullcontext() if precision == "fp32" else torch.autocast(self.device.type, torch.bfloat16)


# Inputs ------------------------------------------------------------------------------------------------------------


def noise(images: int, people: int, side: int, device: torch.device) -> Batch:
    """Images of noise, everybody in frame."""
    generator = torch.Generator().manual_seed(0)
    count = images * people
    low, point = torch.rand(count, 2, generator=generator) * 0.8, torch.rand(count, 2, generator=generator)
    targets = Targets(point, torch.ones(count, dtype=torch.long), point.double(), torch.arange(count))
    pixels = torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8, generator=generator)
    owner = torch.arange(images).repeat_interleave(people)
    ids, names = [f"{i}" for i in range(count)], [f"{i}" for i in range(images)]
    return Batch(pixels, owner, torch.cat([low, low + 0.15], 1), ids, names, torch.full((images, 2), side), targets).to(
        device
    )


@dataclass(eq=False)
class Pictures(GazeDataset):
    """JPEG pictures of 640 x 480, some files under many names, with made-up people; VideoAttentionTarget's protocol.

    Args:
        root: folder of the files, which are written where they are missing.
        train: pictures to train on.
        test: pictures to test on.
        people: in each.
    """

    train: int = 100
    test: int = 100
    people: int = 2

    FILES = 64
    card = Card(
        name="pictures", title="made-up pictures", licence="", source="", citation="", layout="", official={},
        label_version="1", head_boxes="made up", synthetic=True,
    )  # fmt: skip

    protocol = VAT.protocol

    def write(self) -> Pictures:
        rng = np.random.default_rng(0)
        for number in range(min(self.FILES, max(self.train, self.test))):
            coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize((640, 480))
            noisy = np.asarray(coarse).astype(int) + rng.normal(0, 6, (480, 640, 3)).astype(int)
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(
                Path(str(self.root)) / f"{number}.jpg", quality=90
            )
        return self

    def path(self, records: Records, image: int) -> Path:
        return Path(str(self.root)) / f"{int(records.images[image]) % self.FILES}.jpg"

    def parse(self, split: str) -> Annotations:
        images = {"test": self.test, "trainval": self.train, "train": self.train}.get(split, 0)
        people, rng = images * self.people, np.random.default_rng(1)
        low = rng.random((people, 2)) * 0.8
        return Annotations(
            dataset="pictures", split=split, images=np.arange(images).astype(str),
            groups=np.arange(images).astype(str), person_id=np.arange(people).astype(str),
            person_image=np.repeat(np.arange(images), self.people), head=np.concatenate([low, low + 0.15], 1),
            points=rng.random((people, 2)), point_start=np.arange(people + 1), inout=np.ones(people, np.int8),
            sizes=np.tile([640, 480], (images, 1)), head_unit="normalised",
        )  # fmt: skip

    @classmethod
    def fake(cls, root: Path, *, people: int = 12, seed: int = 0) -> Pictures:
        root.mkdir(parents=True, exist_ok=True)
        return cls(root, train=people // 2, test=people // 2).write()


# Measuring ---------------------------------------------------------------------------------------------------------


def measured(setup: Setup, work: Callable[[], Any], count: int, flops: int | None = None) -> Row:
    """Rate, operations (counted unless they are given) and memory of some work on ``count`` things, once warm."""
    if setup.cuda:
        torch.cuda.reset_peak_memory_stats()
    if flops is None:
        with FlopCounterMode(display=False) as counter:
            work()
        flops = counter.get_total_flops()
    work()
    setup.sync()
    begun, calls = time.perf_counter(), 0
    while not calls or (time.perf_counter() - begun < setup.each and not setup.tiny):
        work()
        setup.sync()
        calls += 1
    each = (time.perf_counter() - begun) / calls
    return {
        "rate": count / each,
        "ms": 1e3 * each,
        "flops": flops,
        "tflops": flops / each / 1e12 if flops else None,
        "share": flops / each / setup.peak if flops and setup.peak else None,
        "gib": torch.cuda.max_memory_allocated() / 2**30 if setup.cuda else None,
    }


def train_step(setup: Setup, method: Method, batch: Batch, precision: str) -> Callable[[], None]:
    learnt = [parameter for parameter in method.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=1e-6, fused=setup.cuda)
    method.train()

    def step() -> None:
        with setup.autocast(precision):
            loss = total_loss(method.loss(batch))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def inference(setup: Setup, method: Method, batch: Batch, precision: str) -> Callable[[], None]:
    method.eval()

    def step() -> None:
        with torch.inference_mode(), setup.autocast(precision):
            method(batch)

    return step


def difference(method: Method, batch: Batch) -> float:
    """The largest difference of a method's heatmaps on its device and on the CPU, in float32; moves it to the CPU."""
    method.eval()
    with torch.inference_mode():
        there = method.predict_batch(batch).to("cpu")
        here = method.cpu().predict_batch(batch.to("cpu"))
    assert there.heatmap is not None
    assert here.heatmap is not None
    return float((there.heatmap - here.heatmap).abs().max())


# Parts -------------------------------------------------------------------------------------------------------------
# Each yields names of rows with the functions that measure them: a row that fails takes no other with it.

Part = Iterator[tuple[str, Callable[[], Row]]]


def gaze_lle_like(setup: Setup, title: str, build: Callable[..., Any]) -> Part:
    """Train steps and predictions of one method with ViT-L and ViT-B at every precision, 60 pictures of one person."""
    counted: dict[str, int] = {}

    def row(backbone: str, what: str, precision: str) -> Row:
        options = {"compute_dtype": "float32" if precision == "fp32" else "bfloat16"}
        if precision == "compiled" and build is HCLoRA:
            options["compile"] = True
        method = _vit(setup, build, backbone, **options)
        if precision == "compiled" and build is not HCLoRA:
            method.backbone.compile()
            method.decoder.compile()
        batch = noise(2 if setup.tiny else 60, 1, method.side, setup.device)
        work = (train_step if what == "train step" else inference)(setup, method, batch, precision)
        known = counted.get(backbone + what) if precision == "compiled" else None
        found = measured(setup, work, len(batch.image_ids), known) | {"unit": "pictures/s"}
        counted[backbone + what] = found["flops"]
        if (backbone, what, precision) == ("dinov2_vitl14", "train step", "bf16"):
            found |= {"goal": "peak", "value": found["share"]}
        return found

    def apart(backbone: str) -> Row:
        method = _vit(setup, build, backbone, compute_dtype="float32")
        return {"difference": difference(method, noise(2, 2, method.side, setup.device))}

    sizes = (("L", "dinov2_vitl14"), ("B", "dinov2_vitb14"))[: 1 if setup.tiny else 2]  # all toys are alike
    for letter, backbone in sizes:
        for precision in ("bf16", "fp32"):
            for what in ("train step", "prediction"):
                yield f"{title} ViT-{letter}, {what}, {precision}", partial(row, backbone, what, precision)
        yield f"{title} ViT-{letter}, CPU against {setup.device.type}", partial(apart, backbone)
    for letter, backbone in sizes:  # last: compiling takes long
        for what in ("train step", "prediction"):
            yield f"{title} ViT-{letter}, {what}, compiled", partial(row, backbone, what, "compiled")


def _vit(setup: Setup, build: Callable[..., Any], backbone: str, **options: Any) -> Any:
    if setup.tiny:
        backbone, options = "tiny", options | {"image_size": 28, "dim": 32, "layers": 1, "heads": 2}
    return build(backbone=backbone, backbone_weights="random", feature_cache="off", **options).to(setup.device)


def gazelle(setup: Setup) -> Part:
    return gaze_lle_like(setup, "Gaze-LLE", GazeLLE)


def hclora(setup: Setup) -> Part:
    return gaze_lle_like(setup, "HCLoRA", HCLoRA)


def qwen_folder(folder: Path) -> str:
    """A folder as ``save_pretrained`` writes it, of Qwen3-VL-4B's sizes, without weights."""
    from gazebench.datasets.gazeworld.models import TINY_VLM_FILES

    shutil.copytree(TINY_VLM_FILES, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for group, sizes in QWEN_4B.items():
        config[group] = {**config[group], **sizes}
        config[group].pop("rope_scaling", None)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


def omnigf(setup: Setup) -> Part:
    """A random Qwen3-VL-4B: a train step of 8 pictures, and predictions for 1, 5 and 15 people of one picture."""
    with tempfile.TemporaryDirectory() as folder:
        if setup.tiny:
            sizes: Row = {"backbone": "tiny", "image_size": 64, "picture_size": 64, "head_net": "small",
                          "head_size": 32, "decoder_width": 32}  # fmt: skip
        else:
            sizes = {"backbone": qwen_folder(Path(folder)), "image_size": 448}
        kept: dict[str, Any] = {}

        def method(**options: Any) -> Any:
            """The last one if it has these options: four billion weights are not drawn for every row."""
            if str(options) not in kept:
                kept.clear()
                release()
                with setup.device:
                    kept[str(options)] = OmniGF(backbone_weights="random", **sizes, **options).to(setup.device)
            return kept[str(options)]

        def train(precision: str) -> Row:
            made = method(compute_dtype="bfloat16")
            if precision == "compiled":
                made.vlm.model.model.language_model.compile(dynamic=False)
            batch = noise(8, 1, made.preprocess().size[0], setup.device)
            return measured(setup, train_step(setup, made, batch, "bf16"), 8) | {"unit": "people/s"}

        def predict(precision: str, decode: str, people: int) -> Row:
            made = method(compute_dtype="float32" if precision == "fp32" else "bfloat16", decode=decode)
            batch = noise(1, people, made.preprocess().size[0], setup.device)
            return measured(setup, inference(setup, made, batch, precision), people) | {"unit": "people/s"}

        def apart() -> Row:
            made = method(compute_dtype="float32", decode="anchors")
            return {"difference": difference(made, noise(1, 2, made.preprocess().size[0], setup.device))}

        yield "OmniGF 4B, train step, bf16", partial(train, "bf16")
        for precision, decode in (("bf16", "generate"), ("bf16", "anchors"), ("fp32", "anchors")):
            for people in (1, 5) if setup.tiny else (1, 5, 15):
                yield f"OmniGF 4B, {decode}, {people} people, {precision}", partial(predict, precision, decode, people)
        yield f"OmniGF 4B, CPU against {setup.device.type}", apart
        yield "OmniGF 4B, train step, compiled", partial(train, "compiled")


def loading(setup: Setup) -> Part:
    """Train steps of Gaze-LLE ViT-B on what the loaders give: does the device wait?"""
    from gazebench.datasets.gazeworld import GazeWorld

    def row(dataset: GazeDataset) -> Row:
        method = _vit(setup, GazeLLE, "dinov2_vitb14", compute_dtype="bfloat16")
        options = {"batch_size": 4, "workers": 0} if setup.tiny else {"batch_size": 60}
        module = GazeDataModule(dataset, method.preprocess(), **options)
        found = idle(setup, method, module) | {"unit": "pictures/s", "workers": module.workers}
        return found | ({"goal": "idle", "value": found["idle"]} if isinstance(dataset, Pictures) else {})

    with tempfile.TemporaryDirectory() as folder:
        files = Pictures(Path(folder), train=8 if setup.tiny else 100_000).write()
        yield "Gaze-LLE ViT-B, training on 640 x 480 JPEG files", partial(row, files)
        world = GazeWorld(train=8 if setup.tiny else 4000)
        yield "Gaze-LLE ViT-B, training on GazeWorld, drawn", partial(row, world)


def idle(setup: Setup, method: Method, module: GazeDataModule) -> Row:
    """Rate of training from the loaders, and the share of the time in which the device had nothing to do."""
    busy, images, marks, begun = 0.0, 0, [], 0.0
    module.trainer = None
    for number, loaded in enumerate(module.train_dataloader()):
        if number == 3 or (number == 1 and setup.tiny):  # the loaders have started, kernels are chosen
            setup.sync()
            busy, images, marks, begun = 0.0, 0, [], time.perf_counter()
        batch = module.on_after_batch_transfer(loaded.to(setup.device), 0)
        start = time.perf_counter()
        if setup.cuda:
            marks.append((torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)))
            marks[-1][0].record()
        if not number:
            step = train_step(setup, method, batch, "bf16")
            holder = batch
        vars(holder).update(vars(batch))  # the step reads this object
        step()
        if setup.cuda:
            marks[-1][1].record()
            if len(marks) > 2:  # the loop may be two steps ahead, as Lightning's is
                marks[-3][1].synchronize()
        else:
            busy += time.perf_counter() - start
        images += len(batch.image_ids)
        if begun and time.perf_counter() - begun > setup.each * 4:
            break
    setup.sync()
    wall = time.perf_counter() - begun
    if setup.cuda:
        busy = sum(start.elapsed_time(end) for start, end in marks) / 1e3
    return {"rate": images / wall, "idle": max(0.0, 1 - busy / wall)}


def evaluation(setup: Setup) -> Part:
    """AUC alone; predicting and scoring a part of a test set like VideoAttentionTarget's, scaled to its whole."""
    from gazebench.engine.config import resolve
    from gazebench.engine.run import Places, bench

    def auc() -> Row:
        maps = torch.rand(8 if setup.tiny else 2048, 64, 64)
        points = torch.rand(len(maps), 2, dtype=torch.float64)
        alone = Setup(torch.device("cpu"), setup.tiny, setup.end, 1.0)
        return measured(alone, lambda: auc_rectangle(maps, points), len(maps), 0) | {"unit": "people/s"}

    images = 4 if setup.tiny else 1500
    with tempfile.TemporaryDirectory() as folder:

        def test(turn: str) -> Row:
            options = [f"--dataset.root={folder}", f"--dataset.test={images}", "--model.inout=true",
                       "--model.backbone_weights=random", f"--model.feature_cache={folder}/features",
                       "--model.feature_cache_gib=30", "--trainer.enable_progress_bar=false", "--init=none",
                       f"--trainer.accelerator={'gpu' if setup.cuda else 'cpu'}"]  # fmt: skip
            if setup.tiny:
                options += ["--loader.workers=0", "--model.backbone=tiny", "--model.image_size=28", "--model.dim=32",
                            "--model.layers=1", "--model.heads=2"]  # fmt: skip
            else:
                options += ["--model.backbone=dinov2_vitl14", "--model.compute_dtype=bfloat16"]
            torch.manual_seed(0)
            config = resolve(["gazelle", str(Path(__file__).resolve()), *options])
            weights = Path(folder) / "weights.pt"
            if not weights.is_file():
                Pictures(Path(folder), images, images).write()
                torch.save(config.new_method().export(), weights)
            shutil.rmtree(Path(folder) / "runs", ignore_errors=True)
            begun = time.perf_counter()
            outcome = bench(config, Places(Path(folder) / "runs", Path(folder) / "boards"), weights=weights)
            seconds = time.perf_counter() - begun
            whole = seconds * VAT_TEST["images"] / images
            found = {"rate": outcome.record["samples"]["people"] / seconds, "unit": "people/s", "seconds": whole}
            return found | ({"goal": "evaluation", "value": whole} if turn == "features cached" else {})

        yield "AUC of VideoAttentionTarget, CPU thread", auc
        for turn in ("features computed and stored", "features cached"):
            yield f"Gaze-LLE ViT-L, predict and score, {turn}", partial(test, turn)


PARTS: dict[str, Callable[[Setup], Part]] = {
    "gazelle": gazelle, "hclora": hclora, "omnigf": omnigf, "loading": loading, "evaluation": evaluation,
}  # fmt: skip


# The table ---------------------------------------------------------------------------------------------------------


def release() -> None:
    import gc

    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def rows_of(part: str, setup: Setup) -> Iterator[Row]:
    """The rows of a part; whatever fails, or is begun too late, is a row that says so."""
    try:
        for name, measure in PARTS[part](setup):
            if time.monotonic() > setup.end:
                yield {"what": name, "error": "not measured: the part's time was up"}
                continue
            if not setup.tiny:
                print(json.dumps({"begun": name}), flush=True)
            yield {"what": name, **_tried(measure)}
    except Exception as error:
        yield {"what": part, **_failure(error)}


def _tried(measure: Callable[[], Row]) -> Row:
    torch.manual_seed(0)
    try:
        return measure()
    except Exception as error:  # out of memory, above all
        return _failure(error)
    finally:
        release()


def _failure(error: Exception) -> Row:
    return {"error": f"{type(error).__name__}: {str(error).strip()[:160]}".replace("\n", " ")}


def in_process(part: str, seconds: float) -> Iterator[Row]:
    """The rows of a part that runs as a process of its own, which is ended when its time is up."""
    command = [sys.executable, __file__, "--part", part, "--seconds", str(seconds)]
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        begun, end, ended = part, time.monotonic() + seconds, False
        timer = threading.Timer(seconds, child.kill)
        timer.start()
        assert child.stdout is not None
        for line in child.stdout:
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if not isinstance(found, dict):
                continue
            if "begun" in found:
                begun, ended = found["begun"], False
            elif "what" in found:
                ended = True
                yield found
        code = child.wait()
        timer.cancel()
        if code and not (ended and time.monotonic() < end):
            errors.seek(0)
            last = ["", *errors.read().strip().splitlines()][-1][:160]
            why = "stopped, as the part's time was up" if time.monotonic() >= end - 1 else f"exit code {code}: {last}"
            yield {"what": begun, "error": why}


def verdict(row: Row, card: str) -> str:
    """The goal of a row with met or not met, where its card has one."""
    if "goal" not in row:
        return ""
    text, limit, cards = GOALS[row["goal"]]
    value = row["value"]
    if value is None or not any(name in card for name in cards):
        return f"{text}: goal of {' and '.join(cards)} only"
    met = value >= limit if row["goal"] == "peak" else value < limit
    return f"{text}: {'met' if met else 'not met'}"


def table(result: Row) -> str:
    """The result as Markdown."""

    def number(row: Row, name: str, form: str) -> str:
        return "-" if row.get(name) is None else format(row[name], form)

    def rate(row: Row) -> str:
        return row.get("error") or ("-" if "rate" not in row else f"{row['rate']:.4g} {row['unit']}")

    lines = [
        [
            row["what"],
            rate(row),
            number(row, "tflops", ".1f"), number(row, "share", ".0%"), number(row, "gib", ".1f"),
            number(row, "idle", ".1%"), number(row, "seconds", ".0f"), number(row, "difference", ".1e"),
            verdict(row, result["card"]),
        ]
        for row in result["rows"]
    ]  # fmt: skip
    heads = ["what", "throughput", "TFLOP/s", "of bf16 peak", "peak GiB", "idle", "s, whole test set",
             "largest CPU / GPU difference", "goal"]  # fmt: skip
    known = result["peak_tflops"]
    peak = f"bf16 peak {known} TFLOP/s ({result['peak_source']})" if known else "bf16 peak not known"
    title = f"# {result['card']}\n\n{peak}; {result['cores']} cores, torch {result['torch']}, transformers "
    title += f"{result['transformers']}{'; toy sizes, which say nothing of speed' if result['tiny'] else ''}.\n\n"
    return title + tabulate(lines, heads, tablefmt="github", disable_numparse=True) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Runs the parts, stores and prints the table; 1 where something could not be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--tiny", action="store_true", help="toy sizes; always so without a GPU")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=480.0, help="for everything")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    tiny = given.tiny or not torch.cuda.is_available()
    device = torch.device("cpu" if not torch.cuda.is_available() else "cuda")
    if given.part:
        for row in rows_of(given.part, Setup(device, tiny, time.monotonic() + given.seconds - 15)):
            print(json.dumps(row), flush=True)
        return 0
    import transformers

    card = torch.cuda.get_device_name(0) if device.type == "cuda" else processor()
    known = next((entry for entry in PEAKS if device.type == "cuda" and entry[0] in card), None)
    result: Row = {
        "card": card, "peak_tflops": known and known[1], "peak_source": known and known[2], "cores": os.cpu_count(),
        "torch": torch.__version__, "transformers": transformers.__version__, "tiny": tiny, "rows": [],
    }  # fmt: skip
    slug = "".join(c if c.isalnum() else "-" for c in card.lower()).strip("-") + ("-tiny" if tiny else "")
    begun = time.monotonic()
    unit = (given.seconds - 25) / sum(SECONDS[part] for part in given.only)
    if tiny:
        torch.compiler.set_stance("force_eager")  # the compiler takes a minute, and is not what a toy size is about
    for part in given.only:
        seconds = min(SECONDS[part] * unit, begun + given.seconds - 5 - time.monotonic())
        rows = rows_of(part, Setup(device, tiny, begun + given.seconds)) if tiny else in_process(part, seconds)
        for row in rows:
            result["rows"].append({"part": part, **row})
            result["seconds"] = round(time.monotonic() - begun, 1)
            write_atomically(given.folder / f"{slug}.json", json.dumps(result, indent=1) + "\n")
            write_atomically(given.folder / f"{slug}.md", table(result))
    print(table(result))
    print(f"{result['seconds']:.0f} s; stored in {given.folder / slug}.json and .md")
    return int(any("error" in row for row in result["rows"]))


if __name__ == "__main__":
    sys.exit(main())
