"""The method: both branches, generation in one pass, losses, what learns, and what is stored."""

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from gazebench.core.files import file_digest
from gazebench.core.types import SOCIAL, Batch, Targets
from gazebench.core.weights import WeightsError
from gazebench.data.transforms import gaussian_heatmap, stretched
from gazebench.datasets.gazeworld.scene import WORLD_VERSION
from gazebench.engine.config import resolve
from gazebench.methods.omnigf import OmniGF
from gazebench.methods.omnigf.answers import write_answers
from gazebench.methods.omnigf.gaze_branch import GazeBranch
from gazebench.methods.omnigf.head_encoder import SMALL_WEIGHTS, HeadEncoder, HeadSlots, head_crops
from gazebench.methods.omnigf.prompts import GAZE_PAD
from gazebench.nn import qwen3vl
from gazebench.nn.backbones import IMAGE_MEAN, IMAGE_STD
from gazebench.nn.optimizers import MuonAdamW, linear_weights, warm_cosine
from gazebench.nn.qwen3vl import load

SMALL = {"backbone": "tiny", "backbone_weights": "random", "compute_dtype": "float32", "image_size": 64,
         "picture_size": 96, "head_net": "small", "head_size": 32, "decoder_width": 32, "tuning": "full",
         "dropout": 0.0}  # fmt: skip
ROWS = {
    "OmniGF (zero-shot text)": {"branches": "language", "head_tokens": False, "tuning": "none"},
    "OmniGF (language branch)": {"branches": "language", "head_tokens": False},
    "OmniGF (gaze branch)": {"branches": "gaze", "head_tokens": False},
    "OmniGF (both branches)": {"head_tokens": False},
    "OmniGF": {},
}


def method(**settings) -> OmniGF:
    torch.manual_seed(0)
    return OmniGF(**{**SMALL, **settings}).eval()


@pytest.fixture(scope="module")
def plain() -> OmniGF:
    """As it is made; not to be changed."""
    return method()


@pytest.fixture(scope="module")
def named() -> OmniGF:
    """With categories and pairs; not to be changed."""
    return method(semantic=True, social=True)


def batch(counts=(2, 1, 3), side=96, seed=0) -> Batch:
    """Images with some people each; every third is out of frame, and the fifth has no annotation."""
    generator = torch.Generator().manual_seed(seed)
    people = sum(counts)
    low = torch.rand((people, 2), generator=generator) * 0.7
    head = torch.cat([low, low + 0.05 + 0.2 * torch.rand((people, 2), generator=generator)], dim=1)
    inout = torch.tensor([1, 1, 0] * people)[:people]
    inout[4:5] = -1
    point = torch.rand((people, 2), generator=generator)
    point[inout != 1] = torch.nan
    has = inout == 1
    image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = [["cup", "", "tennis racket"][i % 3] for i in range(people)]
    targets = Targets(point, inout, point[has].double(), has.nonzero().flatten())
    images = torch.randint(0, 256, (len(counts), 3, side, side), dtype=torch.uint8, generator=generator)
    made = Batch(images, image, head, [f"p{i}" for i in range(people)], [str(i) for i in range(len(counts))],
                 torch.full((len(counts), 2), side), targets)  # fmt: skip
    targets.columns = {"label": labels}
    targets.pairs = {name: torch.randint(-1, 2, (len(made.pairs),), generator=generator) for name in SOCIAL}
    return made


def people_of(some: Batch, chosen: list[int]) -> Batch:
    """Only some people, in the order given; without targets."""
    return replace(some, image_index=some.image_index[chosen], head=some.head[chosen],
                   person_ids=[some.person_ids[i] for i in chosen], targets=None)  # fmt: skip


def close(one, other, tolerance=2e-4):
    return torch.allclose(one.float(), other.float(), atol=tolerance)


def written(model: OmniGF, some: Batch):
    """What a model writes about a batch."""
    prompts, images = model.inputs(some, None)
    with model.slots.filled(model.head_embeddings(some)):
        return write_answers(model.vlm, model.prompts, prompts, images)


def total(losses) -> torch.Tensor:
    return torch.stack(list(losses.values())).sum()


# Generation ------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("semantic", [False, True])
def test_anchors_on_the_way_are_those_of_a_second_pass(plain, named, semantic, monkeypatch):
    model, some = (named if semantic else plain), batch((1, 5, 2))
    tokens, decode = model.prompts.tokens, model.prompts.tokenizer.decode
    status = [tokens(word)[0] for word in ("inside", "outside")]
    ends = [tokens(text)[0] for text in ('"}\n', '"}')]
    untaught = model.vlm.logits

    def decided(states):
        """An untrained model says the same of everybody: here the answer depends on the state."""
        scores = untaught(states)
        scores[..., status[0]] = scores[..., status[1]] + states[..., :64].sum(-1)
        scores[..., ends] += 50  # categories of one token, which are cut into tokens in one way
        return scores

    monkeypatch.setattr(model.vlm, "logits", decided)
    transcript = written(model, some)
    rows, images = model.inputs(some, transcript.answers)
    # The text written is the text that would be taught, token by token.
    for row, text in enumerate(transcript.text):
        tail = decode(rows.input_ids[row][rows.attention_mask[row] > 0])
        assert tail.split("assistant\n")[1] == text + "<|im_end|>"
    with model.slots.filled(model.head_embeddings(some)):
        states = model.vlm.states(rows, images)
    assert close(transcript.anchors, states[rows.person_row, rows.anchor])
    prompts, _ = model.inputs(some, None)
    assert close(model.vlm.image_states(prompts, transcript.prompt), model.vlm.image_states(rows, states))
    # Every choice was the likeliest one by the second pass too: digits, statuses, words.
    scores = model.vlm.logits(states[:, :-1])
    digits = [tokens(digit)[0] for digit in "0123456789"]
    inside, checked = [], 0
    for row, ids in enumerate(rows.input_ids):
        begin = int((ids == tokens("<|im_start|>")[0]).nonzero()[-1])
        for place in range(begin, len(ids) - 1):
            token, before = int(ids[place + 1]), decode(ids[begin : place + 1])
            if token in digits and re.search(r"\[(\d*|\d+, \d*)$", before):
                assert scores[row, place, token] >= scores[row, place, digits].max() - 1e-4
                checked += 1
            elif token in status and before.endswith('"status": "'):
                assert scores[row, place, token] >= scores[row, place, status].max() - 1e-4
                inside.append(float(scores[row, place, status].softmax(0)[0]))
    assert checked
    assert {answer.status for answer in transcript.answers} == {"inside", "outside"}
    assert transcript.inside.tolist() == pytest.approx(inside, abs=1e-4)


@torch.no_grad()
def test_forced_tokens_leave_few_passes(plain, monkeypatch):
    passes, states = [], plain.vlm.states
    monkeypatch.setattr(plain.vlm, "states", lambda *given, **more: passes.append(1) or states(*given, **more))
    transcript = written(plain, batch((3, 3)))
    assert len(passes) < 0.6 * max(len(plain.prompts.tokens(text)) for text in transcript.text)


@pytest.mark.parametrize("semantic", [False, True])
def test_whatever_the_model_prefers_the_answer_is_valid(plain, named, semantic, monkeypatch):
    """Scores at random, with a liking for tokens that would break everything."""
    counts = (1, 4, 2)
    model, some = (named if semantic else plain), batch(counts)
    generator = torch.Generator().manual_seed(0)

    def scores(states):
        drawn = 5 * torch.randn((len(states), model.vlm.model.config.text_config.vocab_size), generator=generator)
        drawn[:, [*model.vlm.suppressed, model.prompts.end, model.prompts.padding]] += 20
        return drawn

    monkeypatch.setattr(model.vlm, "logits", scores)
    transcript = written(model, some)
    point = r"\[(0|[1-9]\d{0,2}), (0|[1-9]\d{0,2})\]"
    category = r', "category": "[^"\\\n]+"' if semantic else ""
    form = rf'P(\d+): \{{"status": ("outside"|"inside", "point_2d": {point}{category})\}}'
    for text, count in zip(transcript.text, counts, strict=True):
        lines = text.split("\n")
        assert [int(re.fullmatch(form, line)[1]) for line in lines] == list(range(count))
        for line in lines:
            json.loads(line.partition(": ")[2])
    assert {answer.status for answer in transcript.answers} == {"inside", "outside"}
    prediction = model.predict_batch(some)
    assert len(prediction.text) == some.people
    assert prediction.heatmap.isfinite().all()
    assert (prediction.label is not None) == semantic


def test_free_text_may_be_anything(monkeypatch):
    model, some = method(branches="language", constrained=False), batch((2, 1))
    prediction = model.predict_batch(some)  # an untrained model writes rubbish, until it has written enough
    assert prediction.text == ["", "", ""]
    assert (prediction.point == 0.5).all()
    assert (prediction.inout == 0.5).all()
    inside, outside = '{"status": "inside", "point_2d": [999, 0]}', '{"status": "outside"}'
    ids = [*model.prompts.tokens(f"P1: {outside}\nP0: {inside}"), model.prompts.end]
    step = iter(range(10**6))

    def scores(states):
        made = torch.zeros(len(states), model.vlm.model.config.text_config.vocab_size)
        made[:, ids[min(next(step), len(ids) - 1)]] = 9.0
        return made

    monkeypatch.setattr(model.vlm, "logits", scores)
    prediction = model.predict_batch(some)
    assert prediction.text == [inside, outside, inside]
    assert prediction.point.tolist() == [[1, 0], [0.5, 0.5], [1, 0]]
    assert prediction.inout.tolist() == [1, 0, 1]


def test_both_ways_of_decoding_agree_where_nothing_was_written_before(plain):
    some = batch((1, 3, 1, 2))
    generated = plain.predict_batch(some)
    other = method(decode="anchors")
    other.load_export(plain.export())
    quick = other.predict_batch(some)
    first = torch.tensor([0, 1, 4, 5])  # the first of each image
    assert close(generated.heatmap[first], quick.heatmap[first], 2e-3)
    assert close(generated.inout[first], quick.inout[first])
    assert not close(generated.inout[[2, 3]], quick.inout[[2, 3]], 1e-6)
    assert quick.text is None


# Who is who ------------------------------------------------------------------------------------------------------


def foretold(model: OmniGF):
    """States that can be told beforehand: an anchor's is its person's head embedding, an image token's its place.

    The person is found from the text alone, so that any mistake in rows, columns or order shows.
    """
    tokenizer, image_token = model.prompts.tokenizer, model.vlm.model.config.image_token_id

    def states(rows, images):
        given = iter(model.slots._heads)
        slots = [[next(given) for token in ids if token == model.slots.token] for ids in rows.input_ids]
        made = torch.zeros(*rows.input_ids.shape, model.vlm.dim)
        for row, ids in enumerate(rows.input_ids):
            parts = [tokenizer.decode([token]) for token in ids]
            starts = torch.tensor([0, *(len(part) for part in parts)]).cumsum(0).tolist()
            for found in re.finditer(r"P(\d+): \{\"status", "".join(parts)):
                made[row, starts.index(found.start())] = slots[row][int(found[1])]
            places = (ids == image_token).nonzero().flatten()
            count = torch.arange(len(places))[:, None] + 1.0
            made[row, places] = torch.sin(count * torch.arange(1.0, model.vlm.dim + 1)) + images[0, row].mean()
        return made

    return states


def test_people_and_outputs_stay_together(monkeypatch):
    """1 to 12 people, several rows an image: everybody gets the answer of their own head, on their own image."""
    model = method(decode="anchors", people_limit=5)
    monkeypatch.setattr(model.vlm, "states", foretold(model))
    some = batch((1, 12, 3, 5), seed=3)
    together = model.predict_batch(some)
    heads = model.head_embeddings(some)
    person = heads + model.branch.residual(F.layer_norm(heads, heads.shape[1:]))
    assert close(together.inout, model.branch.inout(person).squeeze(1).sigmoid(), 1e-6)
    # Two people of an image, in slots 1 and 3 of one row, then in different rows: outputs change places exactly.
    for one, other in ((2, 4), (2, 11)):
        order = list(range(some.people))
        order[one], order[other] = order[other], order[one]
        swapped = model.predict_batch(people_of(some, order))
        assert torch.equal(swapped.inout, together.inout[order])
        assert torch.equal(swapped.heatmap, together.heatmap[order])
    for person, image in enumerate(some.image_index.tolist()):
        alone = model.predict_batch(replace(people_of(some, [person]), images=some.images[image][None],
                                            image_index=torch.tensor([0]), image_ids=["x"]))  # fmt: skip
        assert close(alone.heatmap[0], together.heatmap[person], 1e-4)


def test_image_tokens_are_row_by_row(plain):
    """The pixels under the token in row 2 and column 1 of 4 x 4 reach the states that the gaze branch sees there."""
    rows = plain.prompts.rows([[[0.1, 0.1, 0.2, 0.2]]])
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    image[:, 32:48, 16:32] = 255
    patches = plain.vlm.processor.image_processor(images=[image], return_tensors="pt", do_resize=False)["pixel_values"]
    places = (patches == 1).all(1).nonzero().flatten() // 4  # 4 patches a token, together
    assert places.unique().tolist() == [2 * 4 + 1]
    marked = torch.zeros(1, rows.input_ids.shape[1], 1)
    marked[0, (rows.input_ids[0] == plain.vlm.model.config.image_token_id).nonzero().flatten()[places[0]]] = 1
    assert plain.vlm.image_states(rows, marked).mT.unflatten(2, plain.prompts.grid)[0, 0].nonzero().tolist() == [[2, 1]]


@torch.no_grad()
@pytest.mark.parametrize("side", [16, 160])
def test_any_size_of_image(side):
    model = method(image_size=side, picture_size=0)
    for model.generates in (True, False):
        prediction = model.predict_batch(batch((1, 2), side=side))
        assert prediction.heatmap.shape == (3, 64, 64)
        assert prediction.heatmap.isfinite().all()


# Training --------------------------------------------------------------------------------------------------------


def test_losses_are_equation_3():
    model, some = method(semantic=True, social=True, language_weight=0.5, heatmap_weight=7.0, inout_weight=2.0,
                         social_weight=3.0).train(), batch((2, 1, 3))  # fmt: skip
    (_, gaze), targets = model.teacher_forced(some), some.targets
    losses = {name: float(loss.detach()) for name, loss in model.loss(some).items()}
    seen = [0, 1, 3]
    truth = gaussian_heatmap(targets.point[seen], (64, 64))
    assert losses["heatmap"] == pytest.approx(7 * float((gaze.maps[seen] - truth).square().mean()), rel=1e-4)
    probability = gaze.inout.sigmoid().tolist()
    inside = {0: 1, 1: 1, 2: 0, 3: 1, 5: 0}
    surprise = [-math.log(probability[p] if y else 1 - probability[p]) for p, y in inside.items()]
    assert losses["inout"] == pytest.approx(2 * sum(surprise) / 5, rel=1e-4)
    assert gaze.pairs.shape == (2 + 0 + 6, 3)
    for index, name in enumerate(SOCIAL):
        pairs = zip(gaze.pairs[:, index].sigmoid().tolist(), targets.pairs[name].tolist(), strict=True)
        surprise = [-math.log(p if y else 1 - p) for p, y in pairs if y >= 0]
        assert losses[name] == pytest.approx(3 * sum(surprise) / len(surprise), rel=1e-4)
    assert losses["language"] == pytest.approx(0.5 * language_loss(model, some), rel=1e-4)
    told = model.eval().predict_batch(some)  # the same heads, after answers of the model's own
    assert all(getattr(told, name).shape == (8,) and (getattr(told, name) - 0.5).abs().max() <= 0.5 for name in SOCIAL)


@torch.no_grad()
def language_loss(model: OmniGF, some: Batch) -> float:
    """Cross-entropy of the answers' tokens of annotated people, row by row without padding, by transformers."""
    people, images = model.row_people(some)
    heads = model.head_embeddings(some)
    answers = model.answers(some.targets, [False] * some.people)
    side = (model.image_size, model.image_size)
    scene = F.interpolate(some.images.float(), side, mode="bilinear", antialias=True).round().to(torch.uint8)
    surprise, count = 0.0, 0
    for row, image in zip(people, images, strict=True):
        rows = model.prompts.rows([[some.head[p].tolist() for p in row]], [[answers[p] for p in row]])
        labels = torch.where(rows.learnt >= 0, rows.input_ids, -100)
        kinds = (rows.input_ids == model.vlm.model.config.image_token_id).int()
        made = model.vlm.processor.image_processor(images=[scene[image]], return_tensors="pt", do_resize=False)
        with model.slots.filled(heads[row]):
            out = model.vlm.model(input_ids=rows.input_ids, labels=labels, mm_token_type_ids=kinds, **made)
        surprise += float(out.loss) * int((labels >= 0).sum())
        count += int((labels >= 0).sum())
    return surprise / count


def test_pairs_know_who_looks(named):
    some = batch((1, 3, 2))
    person = torch.randn(6, named.vlm.dim, generator=torch.Generator().manual_seed(0))
    image = torch.zeros(3, named.vlm.dim, 4, 4)
    table = [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2), (4, 5), (5, 4)]
    assert some.pairs.tolist() == [list(pair) for pair in table]
    branch = GazeBranch(named.vlm.dim, 32, 1, social=True)
    for logits, (i, j) in zip(branch(image, person, some.image_index, some.pairs).pairs, table, strict=True):
        assert close(logits, branch.pairs(torch.cat([person[i], person[j]])), 1e-5)


def test_positions_and_the_residual_are_added_before_the_product():
    torch.manual_seed(0)
    dim, grid = 16, (3, 5)
    branch = GazeBranch(dim, 16, 1, (6, 10), grid=grid, residual=True)
    image, person, heads = torch.randn(2, dim, *grid), torch.randn(3, dim), torch.randn(3, dim)
    row, pairs = torch.tensor([0, 0, 1]), torch.zeros(0, 2, dtype=torch.int64)
    moved = torch.empty(dim, *grid)
    for y in range(grid[0]):
        for x in range(grid[1]):
            waves = []
            for place in ((y + 0.5) / grid[0], (x + 0.5) / grid[1]):
                angles = [math.pi * 2**octave * place for octave in range(5)]
                waves += [*map(math.sin, angles), *map(math.cos, angles), place]
            moved[:, y, x] = branch.positions.project(torch.tensor(waves))
    unit = (heads - heads.mean(1, keepdim=True)) / (heads.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    added = person + unit @ branch.residual.weight.T + branch.residual.bias
    made = branch(image, person, row, pairs, heads)
    assert close(made.maps, branch.heatmap(image + moved, added, row), 1e-5)
    assert close(made.inout, branch.inout(added).squeeze(1), 1e-5)


def test_weights_of_version_1_start_a_run_and_are_evaluated_without_what_they_lack(tmp_path):
    old = method(image_positions=False, head_residual=False).export()
    torch.save(old, tmp_path / "weights.pt")
    new = method()
    with pytest.raises(WeightsError, match=r"branch\.positions.*image_positions"):
        new.load_export(old)
    fresh = {name: value.clone() for name, value in new.export().items() if name not in old}
    assert {name.split(".")[1] for name in fresh} == {"positions", "residual"}
    new.load_initial(tmp_path / "weights.pt")
    loaded = new.export()
    assert all(torch.equal(loaded[name], value) for name, value in {**old, **fresh}.items())


def test_people_without_annotation_are_in_the_prompt_and_their_answers_are_not_learnt(plain):
    some = batch((2, 1, 3))
    answers = plain.answers(some.targets, [False] * 6)
    assert [answer.status for answer in answers] == ["inside", "inside", "outside", "inside", "unknown", "outside"]
    assert answers[0].point == tuple(round(float(value) * 999) for value in some.targets.point[0])
    assert set(plain.inputs(some, answers)[0].learnt.unique().tolist()) == {-100, 0, 1, 2, 3, 5}


def test_hidden_answers_teach_the_gaze_branch_alone():
    model, some = method(decode="anchors", hidden_share=1.0).train(), batch()
    losses = model.loss(some)
    assert float(losses["language"].detach()) == 0
    assert float(losses["heatmap"].detach()) > 0
    total(losses).backward()
    # In training with everything hidden the anchors are those of the quick mode.
    quick = method(decode="anchors").predict_batch(some)
    assert close(stretched(model.teacher_forced(some)[1].maps), quick.heatmap, 1e-3)


def test_a_batch_nobody_can_learn_from():
    model, some = method(semantic=True, social=True).train(), batch()
    some.targets.inout[:] = -1
    some.targets.pairs = {}
    losses = model.loss(some)
    assert {name: float(loss.detach()) for name, loss in losses.items()} == dict.fromkeys(
        ("language", "heatmap", "inout", *SOCIAL), 0.0
    )
    total(losses).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("title", ROWS)
def test_rows_of_the_ablation(title):
    model, some = method(**ROWS[title]).train(), batch((2, 3))
    assert model.title == title
    losses = model.loss(some)
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gaze, language = "branches" not in ROWS[title] or "gaze" in title, "gaze" not in title
    assert set(losses) == {*(["language"] if language else []), *(["heatmap", "inout"] if gaze else [])}
    if "zero-shot" in title:
        assert learning == model.export() == {}
    else:
        total(losses).backward()
        assert [name for name, p in learning.items() if p.grad is None] == []
    prediction = model.eval().predict_batch(some)
    assert (prediction.heatmap is not None) == (prediction.point is None) == gaze
    assert (prediction.text is not None) == (prediction.text_point is not None) == language
    assert 0 <= prediction.inout.min() <= prediction.inout.max() <= 1
    if language:
        for text, point in zip(prediction.text, prediction.text_point.tolist(), strict=True):
            expected = [value / 999 for value in json.loads(text).get("point_2d", (499.5, 499.5))]
            assert point == pytest.approx(expected, abs=1e-6)
    if not gaze:
        assert torch.equal(prediction.point, prediction.text_point)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_gradients_reach_what_learns_and_nothing_else(tuning):
    model = method(tuning=tuning, social=True, rank=4, checkpointing=tuning == "lora").train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    total(model.loss(batch((2, 3)))).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or (parameter.grad.isfinite().all() and parameter.grad.any()), name
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in learning} == {"vlm", "head_encoder", "branch"}
    assert any("visual" in name for name in learning) == (tuning == "full")
    adapted = [name for name in learning if "language_model" in name and "lora_" in name]
    assert len(adapted) == (2 * 7 * 4 if tuning == "lora" else 0)


def test_a_few_steps_lower_every_loss():
    model, some = method(optimizer="muon", lr=2e-3, lr_heads=2e-3).train(), batch((2, 2))
    model.trainer = type("T", (), {"estimated_stepping_batches": 5})()
    optimizer, schedule = model.optimizer()
    seen = []
    for _ in range(5):
        losses = model.loss(some)
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
        schedule["scheduler"].step()
        seen.append({name: float(loss.detach()) for name, loss in losses.items()})
    assert all(seen[-1][name] < 0.95 * seen[0][name] for name in seen[0]), seen


# Hard cases ------------------------------------------------------------------------------------------------------


def test_more_people_than_the_limit():
    some, model = batch((7, 2)), method(people_limit=3)
    assert model.row_people(some) == ([[0, 1, 2], [3, 4, 5], [6], [7, 8]], [0, 0, 0, 1])
    together, part = model.predict_batch(some), model.predict_batch(people_of(some, [3, 4, 5]))
    assert close(together.heatmap[3:6], part.heatmap, 1e-3)
    assert together.text[3:6] == part.text


def test_images_without_people(named):
    for model in (named, method(branches="language")):
        prediction = model.predict_batch(people_of(batch((2, 1)), []))
        assert len(prediction.inout) == 0
        assert all(value is None or len(value) == 0 for value in (prediction.heatmap, prediction.point))
    some = people_of(batch((2, 1, 1)), [0, 1, 3])  # nobody is left in the second image
    alone = named.predict_batch(people_of(batch((2, 1, 1)), [3]))
    assert close(named.predict_batch(some).heatmap[2], alone.heatmap[0], 1e-3)


def test_crops_are_the_pixels_of_the_box(plain):
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, deviation = (torch.tensor(each).view(3, 1, 1) for each in (IMAGE_MEAN, IMAGE_STD))
    head = torch.tensor([[16 / 96, 8 / 64, 48 / 96, 40 / 64], [0.0, 0.0, 64 / 96, 1.0]])
    crops = head_crops(images, head, torch.tensor([1, 0]), 32)
    assert close(crops[0], (images[1, :, 8:40, 16:48] / 255 - mean) / deviation, 1e-4)
    smaller = F.avg_pool2d(images[0, :, :, :64].float(), 2)  # twice as large: every cell is the mean of its pixels
    assert close(crops[1], (smaller / 255 - mean) / deviation, 1e-4)
    some = batch((4,))  # one pixel; no area, at the border; the whole image; no box
    some.head = torch.tensor([[0.5, 0.5, 0.5 + 1 / 96, 0.5 + 1 / 96], [1.0] * 4, [0.0, 0.0, 1.0, 1.0], [torch.nan] * 4])
    crops, prediction = head_crops(some.images, some.head, some.image_index, 32), plain.predict_batch(some)
    assert all(value.isfinite().all() for value in (crops, prediction.heatmap, prediction.inout))
    assert not crops[3].any()
    pixel = (some.images[0, :, 48, 48, None, None] / 255 - mean) / deviation
    assert close(crops[0, :, 16:17, 16:17], pixel, 0.2)  # within what bilinear sampling takes of its neighbours


def test_heatmaps_keep_order_and_place():
    maps = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    maps[1] = 0.25
    shown = stretched(maps)
    assert (shown.min(), shown.max(), shown[1].any()) == (0, 1, False)
    assert torch.equal(shown[0].flatten().argsort(), maps[0].flatten().argsort())


@pytest.mark.parametrize(("settings", "option"), [
    ({"branches": "gaze", "semantic": True}, "semantic"), ({"branches": "language", "social": True}, "social"),
    ({"branches": "language", "decode": "anchors"}, "decode"), ({"constrained": False}, "constrained"),
    ({"people_limit": 0}, "people_limit"), ({"hidden_share": 0.3}, "hidden_share"),
    ({"image_size": 100}, "nearest: 96"),
])  # fmt: skip
def test_settings_that_exclude_each_other(settings, option):
    with pytest.raises(ValueError, match=option):
        method(**settings)


def test_slots_and_heads_must_agree(plain):
    some = batch((3,))
    rows, images = plain.inputs(some, None)
    with plain.slots.filled(torch.zeros(2, plain.vlm.dim)), pytest.raises(ValueError, match="3 slots"):
        plain.vlm.states(rows, images)


# Weights ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory, save_vlm):
    """A Qwen3-VL of another size in the files and classes of the real one, untied, with few rows to spare."""
    text = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    vision = {"hidden_size": 32, "depth": 2, "num_heads": 2, "deepstack_visual_indexes": [1], "patch_size": 16}
    place = tmp_path_factory.mktemp("models") / "Qwen3-VL-Nano"
    return save_vlm(place, text=text, vision=vision, tie_word_embeddings=False)


def test_a_folder_like_the_real_ones(folder, tmp_path):
    """LoRA on bfloat16 weights, a ResNet-18 for heads: trains, exports what it trained, and comes back."""
    real = {"backbone": str(folder), "backbone_weights": "pretrained", "compute_dtype": "bfloat16", "tuning": "lora",
            "head_net": "resnet18", "head_size": 64, "social": True}  # fmt: skip
    model, some = method(**real), batch((2, 3))
    identity = model.weights_identity()
    assert (identity["grade"], identity["name"]) == ("file", "Qwen3-VL-Nano")
    assert identity["backbone"]["weights"].startswith("sha256:")
    model.train()
    total(model.loss(some)).backward()
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is not None and p.grad.isfinite().all() and p.dtype == torch.float32 for p in learning.values())
    with torch.no_grad():
        for parameter in learning.values():
            parameter += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    weights = model.export()
    assert {name for name in weights if name.startswith("vlm.")} == {n for n in learning if "lora_" in n}
    assert {name.split(".")[0] for name in weights} == {"vlm", "head_encoder", "branch"}
    torch.save(weights, tmp_path / "weights.pt")
    again = method(**real)
    again.load_export(torch.load(tmp_path / "weights.pt"))
    one, other = (each.eval().predict_batch(some) for each in (model, again))
    assert torch.equal(one.heatmap, other.heatmap)
    assert one.text == other.text


def test_weights_that_do_not_fit_are_refused(plain, tmp_path, monkeypatch):
    weights = plain.export()
    with pytest.raises(ValueError, match=r"--model\.backbone"):
        plain.load_export({name: value for name, value in weights.items() if "inout.0" not in name})
    with pytest.raises(ValueError, match="branch"):
        plain.load_export(method(decoder_width=64).export())
    torch.save(weights, tmp_path / "earlier.pt")
    social = method(social=True)
    social.load_initial(tmp_path / "earlier.pt")  # pairs start afresh
    assert torch.equal(social.export()["branch.inout.0.weight"], weights["branch.inout.0.weight"])
    with pytest.raises(ValueError, match=r"branch\.pairs"):
        social.load_export(weights)
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pt")
    (tmp_path / "none").mkdir()
    wrong = {str(tmp_path / "none"): "none", "nobody": "nobody", "missing.pt": "tiny", "other.pt": "tiny"}
    for file, name in wrong.items():
        with pytest.raises(WeightsError, match=re.escape(Path(file).name)):
            load(name, tmp_path / file) if name == "tiny" else load(file)
    shipped = plain.vlm.model, plain.vlm.processor, tmp_path / "away.pt"
    monkeypatch.setattr(qwen3vl, "embedded", lambda kind: {"odd": lambda: shipped})
    with pytest.raises(WeightsError, match=r"away\.pt"):
        load("odd")


def test_folders_with_something_wrong(folder, tmp_path):
    def copied(name):
        return shutil.copytree(folder, tmp_path / name)

    changes = {
        "qwen2_vl": lambda config: config.update(model_type="qwen2_vl"),
        "deepstack_visual": lambda config: config["vision_config"].update(deepstack_visual_indexes=[7]),
    }
    for name, change in changes.items():
        file = copied(name) / "config.json"
        config = json.loads(file.read_text())
        change(config)
        file.write_text(json.dumps(config))
        with pytest.raises(WeightsError, match=name):
            load(str(file.parent))
    file = copied("lacking") / "model.safetensors"
    state = load_file(file)
    state.pop("lm_head.weight")
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lm_head\.weight"):
        load(str(file.parent))


def test_the_tiny_base_takes_a_file(plain, tmp_path):
    assert plain.weights_identity()["grade"] == "none"  # nothing was there before, and all of it learns
    assert method(tuning="lora").weights_identity()["grade"] == "random"
    weights = {name: value + 0.01 for name, value in plain.export().items()}
    torch.save(weights, tmp_path / "warm.pt")
    warm = method(backbone_weights=str(tmp_path / "warm.pt"), tuning="lora")
    assert warm.weights_identity()["grade"] == "file"
    own = warm.vlm.model.get_input_embeddings().weight
    assert torch.equal(own, weights["vlm.model.model.language_model.embed_tokens.weight"])
    assert torch.equal(own, warm.vlm.model.lm_head.weight)


def test_the_slot_token_takes_a_row_or_makes_one(folder, tmp_path):
    vlm, before = load(str(folder)), AutoTokenizer.from_pretrained(folder)
    slot, rows = HeadSlots(vlm).token, vlm.model.config.text_config.vocab_size
    tokens = vlm.processor.tokenizer.encode(f"{GAZE_PAD}<|image_pad|>P0", add_special_tokens=False)
    assert tokens[:2] == [slot, vlm.model.config.image_token_id]
    assert set(before.get_vocab()) | {GAZE_PAD} == set(vlm.processor.tokenizer.get_vocab())
    before.add_tokens([f"<|spare_{i}|>" for i in range(rows - len(before))])  # now the embedding is full
    before.save_pretrained(shutil.copytree(folder, tmp_path / "full"))
    larger = load(str(tmp_path / "full"))
    assert HeadSlots(larger).token == rows < larger.model.get_input_embeddings().num_embeddings


def test_head_encoders_take_weights_by_any_prefix(tmp_path):
    torch.manual_seed(0)
    source = HeadEncoder("resnet18", 16)
    wrapped = {f"module.base_model.{name}": value for name, value in source.net.state_dict().items()}
    torch.save(wrapped | {"module.last.weight": torch.zeros(3)}, tmp_path / "gaze360.pt")
    other = HeadEncoder("resnet18", 16, weights=tmp_path / "gaze360.pt")
    crops = torch.randn(2, 3, 64, 64)
    assert torch.equal(source.eval().net(crops), other.eval().net(crops))
    for broken in ({"conv1.weight": torch.zeros(64, 3, 7, 7)}, {"nothing": torch.zeros(1)}):
        torch.save(broken, tmp_path / "broken.pt")
        with pytest.raises(WeightsError, match=r"broken\.pt"):
            HeadEncoder("resnet18", 16, weights=tmp_path / "broken.pt")
    for net, weights in (("small", tmp_path / "missing.pt"), ("resnet18", "embedded")):
        with pytest.raises(WeightsError):
            HeadEncoder(net, 16, weights=weights)
    made = HeadEncoder("small", 16, scale=0.02)(crops)
    assert float(made.detach().square().mean().sqrt()) == pytest.approx(0.02, rel=0.01)


def test_the_shipped_head_encoder_is_that_of_its_card():
    card = json.loads(SMALL_WEIGHTS.with_suffix(".json").read_text())
    assert (file_digest(SMALL_WEIGHTS), WORLD_VERSION) == (card["sha256"], card["world"])
    model = method(backbone_weights="pretrained", head_weights="embedded")
    identity = model.weights_identity()
    assert identity["grade"] == "embedded"
    assert identity["head_encoder"] == {"net": "small", "weights": "embedded", "sha256": card["sha256"]}
    stored = torch.load(SMALL_WEIGHTS)
    assert all(torch.equal(value, stored[name].float()) for name, value in model.head_encoder.net.state_dict().items())


# Optimizers and recipes ------------------------------------------------------------------------------------------


def test_muon_is_that_of_torch():
    """Torch orthogonalises in bfloat16: they agree to a few per cent of a step. AdamW beside it agrees exactly."""
    shapes = [(64, 32), (32, 64), (64, 32), (32, 32)]
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in (*shapes, (8,))]
    ours, theirs = ([torch.nn.Parameter(value.clone()) for value in start] for _ in range(2))
    groups = [{"params": ours[:-1], "lr": 0.02, "muon": True}, {"params": ours[-1:], "lr": 0.01}]
    optimizers = [
        MuonAdamW(groups, weight_decay=0.1),
        torch.optim.Muon(theirs[:-1], 0.02, weight_decay=0.1),
        torch.optim.AdamW(theirs[-1:], 0.01, weight_decay=0.1),
    ]
    for _ in range(4):
        for mine, its in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            its.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for mine, its, first in zip(ours[:-1], theirs[:-1], start[:-1], strict=True):
        assert (mine - its).norm() < 0.02 * (its - first).norm()
    assert torch.equal(ours[-1], theirs[-1])


def test_optimizer_and_schedule_resume(tmp_path):
    def made():
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
        rest = [net[0].bias, *net[1].parameters()]
        optimizer = MuonAdamW([{"params": [net[0].weight], "lr": 0.1, "muon": True}, {"params": rest, "lr": 0.01}])
        return net, optimizer, warm_cosine(optimizer, 10, warm=0.2)["scheduler"]

    def step(net, optimizer, schedule):
        optimizer.zero_grad()
        loss = net(torch.ones(3, 4)).square().sum()
        loss.backward()
        rates = [group["lr"] for group in optimizer.param_groups]
        optimizer.step()
        schedule.step()
        return float(loss.detach()), rates

    first, second = made(), made()
    steps = [step(*first) for _ in range(5)]
    torch.save([part.state_dict() for part in first], tmp_path / "state.pt")
    steps += [step(*first) for _ in range(5)]
    assert steps[-1][0] < 0.5 * steps[0][0]
    cosine = [0.05 * (1 + math.cos(math.pi * place / 8)) for place in range(8)]
    for (_, rates), rate in zip(steps, [0.05, 0.1, *cosine], strict=True):
        assert rates == pytest.approx([rate, rate / 10])
    for part, state in zip(second, torch.load(tmp_path / "state.pt"), strict=True):
        part.load_state_dict(state)
    assert [step(*second) for _ in range(5)] == steps[5:]


def test_muon_takes_the_matrices_of_the_language_and_image_layers(plain):
    chosen = {id(weight) for weight in linear_weights(plain.vlm)}
    names = {name for name, parameter in plain.vlm.named_parameters() if id(parameter) in chosen}
    assert not any("embed" in name or "norm" in name or "lm_head" in name for name in names)
    assert sum("visual.blocks" in name for name in names) == 4 * 4
    assert sum("language_model" in name for name in names) == 7 * 4


@pytest.mark.parametrize("dataset", ["gazefollow", "vat", "childplay", "gazehoi", "gazefollow_semantic", "vsgaze"])
@pytest.mark.parametrize("backbone", ["Qwen/Qwen3-VL-4B-Instruct", "tiny"])
def test_recipes(dataset, backbone):
    values = resolve(["omnigf", dataset, "--dataset.root=x", f"--model.backbone={backbone}"]).values
    model, loader, trainer = values["model"], values["loader"], values["trainer"]
    assert model["semantic"] == (dataset in ("gazehoi", "gazefollow_semantic"))
    assert model["social"] == (loader["people"] == "all") == (dataset == "vsgaze")
    init = None if dataset == "gazefollow" else "from:gazefollow"
    settings = (model["tuning"], model["optimizer"], model["image_size"], values["init"])
    assert settings == (("language", "muon", 160, None) if backbone == "tiny" else ("lora", "adamw", 448, init))
    assert (loader["batch_size"], trainer["accumulate_grad_batches"]) == ((20, 1) if backbone == "tiny" else (8, 2))


@pytest.mark.parametrize("branches", ["language", "gaze", "both"])
def test_recipes_ask_of_no_branch_what_it_cannot_do(branches):
    model = resolve(["omnigf", "gazeworld", f"--model.branches={branches}"]).values["model"]
    assert model["semantic"] == (branches != "gaze")
    assert model["social"] == (branches != "language")
