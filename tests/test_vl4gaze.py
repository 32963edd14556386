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
from gazebench.methods.vl4gaze import VL4Gaze, _title
from gazebench.methods.vl4gaze.dialogue import Dialogue, buckets
from gazebench.nn.qwen3vl import load_vlm
from gazebench.nn.rows import IGNORED
from gazebench.study.plan import read_plan
from gazebench.vlm.local import LocalModel
from gazebench.vqa.questions.reading import read

ROOT = Path(__file__).resolve().parent.parent
WORLD = load_dataset("gazeworld")
SMALL = {"backbone": "tiny", "backbone_weights": "random", "compute_dtype": "float32", "image_size": 64,
         "tuning": "full", "dropout": 0.0, "augment": False, "optimizer": "muon", "answer_limit": 8}  # fmt: skip
PAIRS = [
    [("Where does he look?", "top-left"), ("What does the person in green look at?", "a red ball"), ("x?", "[1, 2]")],
    [("At which point?", "[500, 20]")],
]


def method(**settings) -> VL4Gaze:
    torch.manual_seed(0)
    return VL4Gaze(**{**SMALL, **settings})


@pytest.fixture(scope="module")
def plain() -> VL4Gaze:
    """As it is made; not to be changed."""
    return method().eval()


@pytest.fixture(scope="module")
def batch(plain) -> Batch:
    dataset = WORLD(train=4, val=1, test=4)
    samples = ImageSamples(
        dataset, dataset.records("train"), plain.preprocess(), augment=False, sees_images=True, bad_images="error",
        seed=0,
    )  # fmt: skip
    return collate([samples[image] for image in range(4)])


def pictures(model, count):
    generator = torch.Generator().manual_seed(1)
    return model.vlm.pixels(torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=generator))


@torch.no_grad()
def test_a_packed_question_is_read_as_if_it_were_alone(plain):
    patches, grid = pictures(plain, 2)
    rows = plain.dialogue.packed(PAIRS)
    states, number = plain.vlm.states(rows, patches, grid, None), 0
    for image, pairs in enumerate(PAIRS):
        for question, answer in pairs:
            own = patches[image : image + 1], grid[image : image + 1], None
            alone = plain.dialogue.packed([[(question, answer)]])
            one, other = states[rows.learnt == number], plain.vlm.states(alone, *own)
            assert torch.allclose(one, other[alone.learnt == 0], atol=2e-5)
            asked = plain.vlm.states(plain.dialogue.asked([question]), *own)
            before = int((alone.learnt[0] == 0).nonzero()[0]) - 1
            assert torch.allclose(asked[0, -1], other[0, before], atol=2e-5), "what is learnt is what is asked later"
            number += 1


def test_a_prompt_is_the_chat_template_word_for_word(plain):
    turns = [
        {"role": "system", "content": [{"type": "text", "text": ""}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Where to?"}]},
    ]
    processor = plain.vlm.processor
    text = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    expected = processor.tokenizer(text.replace("<|image_pad|>", "<|image_pad|>" * 16))["input_ids"]
    assert plain.dialogue.asked(["Where to?"]).input_ids[0].tolist() == expected


def test_answers_are_learnt_and_nothing_else(plain):
    rows = plain.dialogue.packed(PAIRS)
    flat = [answer for pairs in PAIRS for _, answer in pairs]
    for number, answer in enumerate(flat):
        ids = rows.input_ids[rows.learnt == number].tolist()
        assert ids[-1] == plain.dialogue.end
        assert plain.vlm.processor.tokenizer.decode(ids[:-1]) == answer
    assert set(rows.learnt.unique().tolist()) == {IGNORED, *range(len(flat))}


@torch.no_grad()
def test_writing_is_that_of_the_library(plain, batch):
    """Against transformers' own greedy generation, one question at a time."""
    patches, grid = plain.vlm.pixels(batch.images)
    questions = ["What does the person look at?", "Where?"]
    images = [0, 2]
    said = plain._said(questions, images, plain.vlm.look(patches, grid))
    for question, image, text in zip(questions, images, said, strict=True):
        rows = plain.dialogue.asked([question])
        ids = plain.vlm.model.generate(
            input_ids=rows.input_ids, attention_mask=rows.attention_mask, pixel_values=patches[image],
            image_grid_thw=grid[image : image + 1], max_new_tokens=SMALL["answer_limit"], do_sample=False,
            mm_token_type_ids=(rows.input_ids == plain.vlm.model.config.image_token_id).long(),
            suppress_tokens=plain.vlm.mute,
        )[0, rows.input_ids.shape[1] :].tolist()  # fmt: skip
        ids = ids[: ids.index(plain.dialogue.end)] if plain.dialogue.end in ids else ids
        assert text == plain.vlm.processor.tokenizer.decode(ids)


def test_everybody_has_a_point_and_a_share_of_being_inside(plain, batch):
    prediction = plain.predict_batch(batch)
    assert prediction.point.shape == (batch.people, 2)
    assert ((prediction.point >= 0) & (prediction.point <= 1)).all()
    assert len(prediction.extra["answers"]) == len(batch.questions)
    patches, grid = plain.vlm.pixels(batch.images)
    person = batch.people - 1
    image = int(batch.image_index[person])
    rows = plain.dialogue.asked([plain._canonical(batch.head[person].tolist())])
    with torch.no_grad():
        scores = plain.vlm.logits(plain.vlm.states(rows, patches[[image]], grid[[image]], None)[0, -1])
    first = [plain.dialogue.tokens(text)[0] for text in ('{"point_2d": [', "cannot tell")]
    assert torch.allclose(prediction.inout[person], scores[first].softmax(0)[0], atol=1e-5)
    box = ", ".join(str(round(999 * side)) for side in batch.head[person].tolist())
    assert f"[{box}]" in plain._canonical(batch.head[person].tolist())
    assert "the person look" in plain._canonical([float("nan")] * 4)
    # Nothing is asked: points all the same. Questions do not change them.
    silent = plain.predict_batch(replace(batch, questions=[], targets=None))
    assert torch.equal(silent.point, prediction.point)
    assert not silent.extra


def test_batches_hold_rows_alike_in_length(plain, batch, monkeypatch):
    assert buckets([3, 9, 4, 9, 1], 2) == [[1, 3], [2, 0], [4]]
    whole = plain.predict_batch(batch)
    monkeypatch.setattr(plain, "rows_limit", 3)
    pieces = plain.predict_batch(batch)
    assert pieces.extra["answers"] == whole.extra["answers"]
    assert torch.allclose(pieces.point, whole.point, atol=1e-5)
    widths, real = [], Dialogue.asked

    def watched(self, *arguments):
        rows = real(self, *arguments)
        widths.append(rows.input_ids.shape[1])
        return rows

    monkeypatch.setattr(Dialogue, "asked", watched)
    plain.predict_batch(batch)
    half = len(widths) - -(-len(batch.questions) // 3)
    assert widths[half:] == sorted(widths[half:], reverse=True)


def test_weights_choose_what_is_learnt(batch):
    model = method(direction_weight=0.5, recognition_weight=0.0, questions_limit=4)
    assert model.title == "VL4Gaze (ours, object + direction + point only)"
    task = {question.text: question.task for question in batch.questions}
    counts = Counter(question.task for question in batch.questions)
    drawn = Counter()
    for _ in range(60):
        pairs = model._drawn(batch)
        assert all(len(some) <= 4 for some in pairs)
        drawn.update(task[question] for some in pairs for question, _ in some)
    assert not drawn["recognition"]
    assert 0.25 < drawn["direction"] / counts["direction"] / (drawn["object"] / counts["object"]) < 0.9
    answers = {q.text: t.answer for q, t in zip(batch.questions, batch.targets.answers, strict=True)}
    assert all(answers[question] == answer for some in pairs for question, answer in some)
    with pytest.raises(ValueError, match=r"object_weight 2\.0: choose 0 to 1"):
        method(object_weight=2.0)
    with pytest.raises(ValueError, match="all tasks have weight 0"):
        method(object_weight=0, direction_weight=0, point_weight=0, recognition_weight=0)
    assert method(tuning="none").title == "VL4Gaze (ours, zero-shot)"


def test_training_teaches_the_answers(batch):
    model = method()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = model.loss(model(batch), batch)["language"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.4 * losses[0]
    prediction = model.eval().predict_batch(replace(batch, targets=None))
    forms = [read(q.form, text).parsed for q, text in zip(batch.questions, prediction.extra["answers"], strict=True)]
    assert sum(forms) > 0.5 * len(forms)


def test_a_batch_without_questions_to_learn_has_no_loss_and_all_gradients(batch):
    model = method(tuning="lora")
    model.train()
    loss = model.loss(model(replace(batch, questions=[])), batch)["language"]
    loss.backward()
    assert float(loss.detach()) == 0
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in learning)
    assert all(p.grad is not None for p in learning.values())


def test_the_ablation_is_a_plan_that_resolves():
    plan = read_plan(ROOT / "studies" / "vqa.yaml")
    titles = {"all": "VL4Gaze (ours)", "point": "VL4Gaze (ours, point only)"}
    for name, title in titles.items():
        run = next(run for run in plan.runs if run.row == name)
        model = plan.config(run).values["model"]
        weights = {task: model[f"{task}_weight"] for task in ("object", "direction", "point", "recognition")}
        assert _title(weights, "lora") == title


def test_recipes_fit_their_backbone():
    tiny = resolve(["vl4gaze", "gazeworld"]).values
    assert tiny["model"]["backbone"] == "tiny"
    assert tiny["model"]["tuning"] == "language"
    full = resolve(["vl4gaze", "vat"]).values
    assert full["model"]["backbone"].endswith("Qwen3-VL-4B-Instruct")
    assert full["model"]["tuning"] == "lora"
    assert full["loader"]["train_stride"] == 6


def test_a_tuned_model_is_saved_for_other_programs(plain, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("save_vlm", ROOT / "scripts" / "save_vlm.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    torch.save(plain.export(), tmp_path / "weights.pt")
    script.main(["tiny", str(tmp_path / "model"), f"--weights={tmp_path / 'weights.pt'}"])
    assert "weights sha256:" in capsys.readouterr().out
    again = load_vlm(str(tmp_path / "model"))
    own = plain.vlm.model.state_dict()
    assert own.keys() == again.model.state_dict().keys()
    assert all(torch.equal(value, own[name]) for name, value in again.model.state_dict().items())
    assert LocalModel(tmp_path / "model").identity()["model"]  # what `gazebench vqa ask` asks takes it, too
