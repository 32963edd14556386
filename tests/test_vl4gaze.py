"""The method: packed questions are as good as lone ones, what is learnt, what is written, and points out of text."""

import importlib.util
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gazebench.core.types import Batch
from gazebench.data.datamodule import ImageSamples, collate
from gazebench.engine.config import resolve
from gazebench.engine.registry import load_dataset
from gazebench.methods.vl4gaze import VL4Gaze
from gazebench.methods.vl4gaze.dialogue import buckets
from gazebench.nn.qwen3vl import IGNORED, load
from gazebench.study.plan import read_plan
from gazebench.vlm.local import LocalModel
from gazebench.vqa.questions.parsing import parse
from gazebench.vqa.task_v2 import NAME, QuestionsV2

ROOT = Path(__file__).resolve().parent.parent
SMALL = {"backbone": "tiny", "backbone_weights": "random", "compute_dtype": "float32", "image_size": 64,
         "tuning": "full", "dropout": 0.0, "augment": False, "optimizer": "muon", "answer_limit": 8}  # fmt: skip


def method(**settings) -> VL4Gaze:
    torch.manual_seed(0)
    return VL4Gaze(**{**SMALL, **settings})


@pytest.fixture(scope="module")
def plain() -> VL4Gaze:
    """As it is made; not to be changed."""
    return method().eval()


@pytest.fixture(scope="module")
def samples(plain) -> ImageSamples:
    dataset = load_dataset("gazeworld")(train=4, val=1, test=4)
    return ImageSamples(dataset, dataset.records("train"), plain.preprocess(), tasks=[QuestionsV2()])


@pytest.fixture(scope="module")
def batch(samples) -> Batch:
    return collate([samples[image] for image in range(4)])


def questions_of(batch: Batch) -> list:
    return [item.input for item in batch.items[NAME]]


@torch.no_grad()
def test_a_packed_question_is_read_as_if_it_were_alone(plain):
    generator = torch.Generator().manual_seed(1)
    images = plain.vlm.encode(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator))
    pairs = [("Where does he look?", "top-left"), ("What does the person in green look at?", "a red ball"),
             ("x?", "[1, 2]"), ("At which point?", "[500, 20]")]  # fmt: skip
    rows = plain.dialogue.packed([pairs[:3], pairs[3:]])
    states = plain.vlm.states(rows, images)
    for number, (question, answer) in enumerate(pairs):
        own = images[:, [number // 3]]
        alone = plain.dialogue.packed([[(question, answer)]])
        lone = plain.vlm.states(alone, own)
        assert torch.allclose(states[rows.learnt == number], lone[alone.learnt == 0], atol=2e-5)
        asked = plain.vlm.states(plain.dialogue.prompts([question]), own)
        before = int((alone.learnt[0] == 0).nonzero()[0]) - 1
        assert torch.allclose(asked[0, -1], lone[0, before], atol=2e-5), "what is learnt is what is asked later"
        ids = rows.input_ids[rows.learnt == number].tolist()
        assert (plain.dialogue.text([ids]), ids[-1]) == ([answer], plain.dialogue.end)
    assert set(rows.learnt.unique().tolist()) == {IGNORED, *range(4)}


@torch.no_grad()
def test_writing_is_that_of_the_library(plain, batch):
    """Against transformers' own processor and greedy generation, one question at a time."""
    questions, images = ["What does the person look at?", "Where?"], [0, 2]
    written = plain.free_answers(questions, images, plain.vlm.encode(batch.images))
    for question, image, text in zip(questions, images, written, strict=True):
        user = [{"type": "image", "image": batch.images[image]}, {"type": "text", "text": question}]
        turns = [{"role": "system", "content": [{"type": "text", "text": ""}]}, {"role": "user", "content": user}]
        inputs = plain.vlm.processor.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
            processor_kwargs={"do_resize": False},
        )  # fmt: skip
        assert torch.equal(plain.dialogue.prompts([question]).input_ids, inputs["input_ids"])
        settings = {"max_new_tokens": SMALL["answer_limit"], "suppress_tokens": sorted(plain.vlm.suppressed)}
        ids = plain.vlm.model.generate(**inputs, do_sample=False, **settings)
        ids = ids[0, inputs["input_ids"].shape[1] :].tolist()
        ids = ids[: ids.index(plain.dialogue.end)] if plain.dialogue.end in ids else ids
        assert text == plain.vlm.processor.tokenizer.decode(ids)


def test_everybody_has_a_point_and_a_share_of_being_inside(plain, batch):
    prediction = plain.predict_batch(batch)
    assert prediction.point.shape == (batch.people, 2)
    assert ((prediction.point >= 0) & (prediction.point <= 1)).all()
    assert len(prediction.outputs[NAME]) == len(questions_of(batch))
    person = batch.people - 1
    head = batch.head[person].tolist()
    rows = plain.dialogue.prompts([plain.point_question(head)])
    with torch.no_grad():
        own = plain.vlm.encode(batch.images[batch.image_index[[person]]])
        scores = plain.vlm.logits(plain.vlm.states(rows, own)[0, -1])
    first = [plain.dialogue.tokens(text)[0] for text in ('{"point_2d": [', "cannot tell")]
    assert torch.allclose(prediction.inout[person], scores[first].softmax(0)[0], atol=1e-5)
    assert f"[{', '.join(str(round(999 * side)) for side in head)}]" in plain.point_question(head)
    assert "is the person looking" in plain.point_question([float("nan")] * 4)
    silent = plain.predict_batch(replace(batch, items={}, targets=None))
    assert torch.equal(silent.point, prediction.point), "questions do not change points"
    assert silent.outputs == {}


def test_questions_are_answered_in_batches_alike_in_length(plain, batch, monkeypatch):
    assert buckets([3, 9, 4, 9, 1], 2) == [[1, 3], [2, 0], [4]]
    whole = plain.predict_batch(batch)
    monkeypatch.setattr(plain, "rows_limit", 3)
    pieces = plain.predict_batch(batch)
    assert pieces.outputs == whole.outputs
    assert torch.allclose(pieces.point, whole.point, atol=1e-5)


def test_weights_choose_what_is_learnt(batch):
    model = method(direction_weight=0.5, recognition_weight=0.0, social_weight=0.0, questions_limit=4)
    assert model.title == "VL4Gaze (ours, object + direction + point only)"
    kind = {question.text: question.task for question in questions_of(batch)}
    counts = Counter(question.task for question in questions_of(batch))
    answers = {q.text: t.answer for q, t in zip(questions_of(batch), batch.targets.truths[NAME], strict=True)}
    drawn = Counter()
    for _ in range(60):
        pairs = model.draw_questions(batch)
        assert all(len(some) <= 4 for some in pairs)
        assert all(answers[question] == answer for some in pairs for question, answer in some)
        drawn.update(kind[question] for some in pairs for question, _ in some)
    assert not drawn["recognition"]
    assert 0.25 < drawn["direction"] / counts["direction"] / (drawn["object"] / counts["object"]) < 0.9
    with pytest.raises(ValueError, match="object_weight 2"):
        method(object_weight=2.0)
    with pytest.raises(ValueError, match="weight 0"):
        method(**{f"{kind}_weight": 0 for kind in ("object", "direction", "point", "recognition", "social")})


def test_training_teaches_the_answers(samples):
    batch = collate([samples[image] for image in range(2)])
    model = method().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = model.loss(batch)["language"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.4 * losses[0]
    answers = model.eval().predict_batch(batch).outputs[NAME]
    parsed = [parse(q.form, text).valid for q, text in zip(questions_of(batch), answers, strict=True)]
    assert sum(parsed) > 0.5 * len(parsed)


def test_a_batch_without_questions_to_learn_has_no_loss_and_all_gradients(batch):
    model = method(tuning="lora").train()
    loss = model.loss(replace(batch, items={}))["language"]
    loss.backward()
    assert float(loss.detach()) == 0
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name and p.grad is not None for name, p in learning.items())


def test_recipes_and_titles():
    tiny, full = (resolve(["vl4gaze", dataset]).values for dataset in ("gazeworld", "vat"))
    assert (tiny["model"]["backbone"], tiny["model"]["tuning"]) == ("tiny", "language")
    assert full["model"]["backbone"].endswith("Qwen3-VL-4B-Instruct")
    assert (full["model"]["tuning"], full["loader"]["train_stride"]) == ("lora", 6)
    assert method(tuning="none").title == "VL4Gaze (ours, zero-shot)"
    plan = read_plan(ROOT / "studies" / "vqa.yaml")  # the ablation
    for name, title in {"seven": "VL4Gaze (ours)", "point": "VL4Gaze (ours, point only)"}.items():
        model = plan.config(next(run for run in plan.runs if run.row == name)).values["model"]
        assert method(**{key: value for key, value in model.items() if key.endswith("_weight")}).title == title


def test_a_tuned_model_is_saved_for_other_programs(plain, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("save_vlm", ROOT / "scripts" / "save_vlm.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    torch.save(plain.export(), tmp_path / "weights.pt")
    script.main(["tiny", str(tmp_path / "model"), f"--weights={tmp_path / 'weights.pt'}"])
    assert "sha256:" in capsys.readouterr().out
    again = load(str(tmp_path / "model")).model.state_dict()
    own = plain.vlm.model.state_dict()
    assert own.keys() == again.keys()
    assert all(torch.equal(value, own[name]) for name, value in again.items())
    assert LocalModel(tmp_path / "model").identity()["model"]  # what `gazebench vqa ask` asks takes it, too
