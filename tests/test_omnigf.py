"""The method: both branches, generation in one pass, losses, what learns, and what is stored."""

import hashlib
import json
import math
import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from gazebench.core.files import file_digest
from gazebench.core.types import Batch, Targets
from gazebench.data.transforms import gaussian_heatmap
from gazebench.datasets.gazeworld.world import WORLD_VERSION
from gazebench.engine.config import resolve
from gazebench.methods.omnigf import OmniGF, image_tokens
from gazebench.methods.omnigf.gaze_branch import spread
from gazebench.methods.omnigf.head_encoder import SMALL_WEIGHTS, HeadEncoder, head_crops
from gazebench.nn import gaze_vlm
from gazebench.nn.backbones import IMAGE_MEAN, IMAGE_STD, WeightsError
from gazebench.nn.gaze_language import GAZE_PAD, Answer, parse_answers
from gazebench.nn.optimizers import Muon, MuonAdamW, matrices, warm_cosine
from gazebench.nn.qwen3vl import load_vlm
from gazebench.vlm.tiny import TinySize, build

SMALL = {"backbone": "tiny", "backbone_weights": "random", "compute_dtype": "float32", "image_size": 64,
         "picture_size": 96, "head_net": "small", "head_size": 32, "decoder_width": 32, "tuning": "full",
         "dropout": 0.0, "hidden_share": 0.0}  # fmt: skip
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


def batch(counts=(2, 1, 3), side=96, seed=0, known=True) -> Batch:
    """Pictures with some people each, of whom every third is out of frame, and one nobody annotated."""
    generator = torch.Generator().manual_seed(seed)
    people = sum(counts)
    low = torch.rand((people, 2), generator=generator) * 0.7
    head = torch.cat([low, low + 0.05 + 0.2 * torch.rand((people, 2), generator=generator)], dim=1)
    inout = torch.tensor([1, 1, 0] * people)[:people]
    if people > 4:
        inout[4] = -1
    point = torch.rand((people, 2), generator=generator)
    point[inout != 1] = torch.nan
    has = inout == 1
    image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = [["cup", "", "tennis racket"][i % 3] for i in range(people)]
    targets = Targets(point, inout, point[has].double(), has.nonzero().flatten(), [""] * people, {"label": labels})
    images = torch.randint(0, 256, (len(counts), 3, side, side), dtype=torch.uint8, generator=generator)
    names = [str(i) for i in range(len(counts))]
    whole = Batch(images, image, head, [f"p{i}" for i in range(people)], names, names,
                  torch.full((len(counts), 2), side), targets if known else None)  # fmt: skip
    for name in ("lah", "laeo", "sa"):
        targets.extra[name] = torch.randint(-1, 2, (len(whole.pairs),), generator=generator)
    return whole


def people_of(some: Batch, chosen: list[int]) -> Batch:
    """Only some people, in the order given; blind."""
    return replace(some, image_index=some.image_index[chosen], head=some.head[chosen],
                   person_ids=[some.person_ids[i] for i in chosen], targets=None)  # fmt: skip


def close(one, other, tolerance=2e-4):
    return torch.allclose(one.float(), other.float(), atol=tolerance)


def written(model: OmniGF, some: Batch):
    """What a model writes about a batch, and the rows of its people."""
    people, images = model.row_people(some)
    boxes = [[some.head[p].tolist() for p in row] for row in people]
    patches, grid = model.patches(some, images)
    heads = model.head_embeddings(some)
    prompts = model.scribe.rows(boxes, None)
    return model.writer.write(prompts, patches, grid, heads), (boxes, patches, grid, heads)


# Generation ------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("semantic", [False, True])
def test_anchors_on_the_way_are_those_of_a_second_pass(plain, named, semantic, monkeypatch):
    model, some = (named if semantic else plain), batch((1, 5, 12, 2))
    status = [model.scribe.tokens(word)[0] for word in ("inside", "outside")]
    ends = [model.scribe.tokens(text)[0] for text in ('"}\n', '"}')]
    untaught = model.vlm.logits

    def decided(states):
        """An untrained model says the same of everybody: here what it says hangs on the state."""
        scores = untaught(states)
        scores[..., status[0]] = scores[..., status[1]] + states[..., :64].sum(-1)
        scores[..., ends] += 50  # categories of one token, which are cut into tokens in one way
        return scores

    monkeypatch.setattr(model.vlm, "logits", decided)
    transcript, (boxes, patches, grid, heads) = written(model, some)
    people, _ = model.row_people(some)
    answers = [[transcript.answers[p] for p in row] for row in people]
    rows = model.scribe.rows(boxes, answers)
    # The text written is the text that would be taught, token by token.
    for row, text in enumerate(transcript.text):
        tail = model.scribe.tokenizer.decode(rows.input_ids[row][rows.attention_mask[row] > 0])
        assert tail.split("assistant\n")[1] == text + "<|im_end|>"
    states = model.vlm.states(rows, patches, grid, heads)
    assert close(transcript.anchors, states[rows.person_row, rows.anchor])
    again = image_tokens(rows, states, model.scribe.grid)
    assert close(image_tokens(model.scribe.rows(boxes, None), transcript.prompt, model.scribe.grid), again)
    # Every choice was the likeliest one by the second pass too: digits, statuses, words.
    scores = model.vlm.logits(states[:, :-1])
    decode = model.scribe.tokenizer.decode
    digits = [model.scribe.tokens(digit)[0] for digit in "0123456789"]
    inside, checked = [], 0
    for row, ids in enumerate(rows.input_ids):
        begin = int((ids == model.scribe.tokens("<|im_start|>")[0]).nonzero()[-1])
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
def test_schema_leaves_few_passes(plain):
    transcript, _ = written(plain, batch((3, 3)))
    tokens = max(len(plain.scribe.tokens(text)) for text in transcript.text)
    assert transcript.passes < 0.6 * tokens


@pytest.mark.parametrize("semantic", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_whatever_the_model_prefers_the_answer_is_valid(plain, named, semantic, seed, monkeypatch):
    """Scores at random, with a liking for tokens that would break everything."""
    model, some = (named if semantic else plain), batch((1, 7, 4), known=False)
    generator = torch.Generator().manual_seed(seed)

    def scores(states):
        drawn = 5 * torch.randn((len(states), model.vlm.model.config.text_config.vocab_size), generator=generator)
        drawn[:, [*model.vlm.mute, model.scribe.end, model.scribe.padding]] += 20
        return drawn

    monkeypatch.setattr(model.vlm, "logits", scores)
    transcript, _ = written(model, some)
    point = r"\[(0|[1-9]\d{0,2}), (0|[1-9]\d{0,2})\]"
    named_ = r', "category": "[^"\\\n]+"' if semantic else ""
    form = rf'P(\d+): \{{"status": ("outside"|"inside", "point_2d": {point}{named_})\}}'
    for text, count in zip(transcript.text, (1, 7, 4), strict=True):
        lines = text.split("\n")
        matches = [re.fullmatch(form, line) for line in lines]
        assert [int(match[1]) for match in matches] == list(range(count))
        for line in lines:
            json.loads(line.partition(": ")[2])
    assert None not in transcript.answers
    assert {answer.status for answer in transcript.answers} == {"inside", "outside"}
    prediction = model.predict_batch(some)
    assert len(prediction.extra["text"]) == some.people
    assert prediction.heatmap.isfinite().all()
    assert ("label" in prediction.extra) == semantic


def test_free_text_may_be_anything(monkeypatch):
    model = method(branches="language", constrained=False)
    some = batch((2, 1), known=False)
    prediction = model.predict_batch(some)  # an untrained model writes rubbish, and ends when it has written enough
    assert prediction.extra["text"] == ["", "", ""]
    assert (prediction.point == 0.5).all()
    assert (prediction.inout == 0.5).all()
    script = 'P1: {"status": "outside"}\nP0: {"status": "inside", "point_2d": [999, 0]}'
    ids = [*model.scribe.tokens(script), model.scribe.end]
    step = iter(range(10**6))

    def scores(states):
        place = next(step)
        said = torch.zeros(len(states), model.vlm.model.config.text_config.vocab_size)
        said[:, ids[min(place, len(ids) - 1)]] = 9.0
        return said

    monkeypatch.setattr(model.vlm, "logits", scores)
    prediction = model.predict_batch(some)
    inside, outside = '{"status": "inside", "point_2d": [999, 0]}', '{"status": "outside"}'
    assert prediction.extra["text"] == [inside, outside, inside]
    assert prediction.point.tolist() == [[1, 0], [0.5, 0.5], [1, 0]]
    assert prediction.inout.tolist() == [1, 0, 1]


def test_both_ways_of_decoding_agree_where_nothing_was_written_before(plain):
    some = batch((1, 3, 1, 2), known=False)
    generated = plain.predict_batch(some)
    other = method(decode="anchors")
    other.load_export(plain.export())
    quick = other.predict_batch(some)
    first = torch.tensor([0, 1, 4, 5])  # the first of each picture
    assert close(generated.heatmap[first], quick.heatmap[first], 2e-3)
    assert close(generated.inout[first], quick.inout[first])
    assert not close(generated.inout[[2, 3]], quick.inout[[2, 3]], 1e-6)
    assert "text" not in quick.extra


# Who is who ------------------------------------------------------------------------------------------------------


def reading(model: OmniGF):
    """States that can be told beforehand: an anchor's is its person's head embedding, an image token's its place.

    The person is found from the text alone, so that any mistake in rows, columns or order shows.
    """
    tokenizer, config = model.scribe.tokenizer, model.vlm.model.config

    def states(rows, patches, grid, heads):
        given = iter(heads)
        slots = [[next(given) for token in ids if token == model.vlm.slot_id] for ids in rows.input_ids]
        made = torch.zeros(*rows.input_ids.shape, model.vlm.dim)
        for row, ids in enumerate(rows.input_ids):
            parts = [tokenizer.decode([token]) for token in ids]
            starts = torch.tensor([0, *(len(part) for part in parts)]).cumsum(0).tolist()
            text = "".join(parts)
            for found in re.finditer(r"P(\d+): \{\"status", text):
                made[row, starts.index(found.start())] = slots[row][int(found[1])]
            places = (ids == config.image_token_id).nonzero().flatten()
            count = torch.arange(len(places))[:, None] + 1.0
            made[row, places] = torch.sin(count * torch.arange(1.0, model.vlm.dim + 1)) + patches[row].mean()
        return made

    return states


def test_people_and_outputs_stay_together(monkeypatch):
    """1 to 12 people, several rows a picture: whoever stands where in the prompt gets the answer of their own head."""
    model = method(decode="anchors", people_limit=5)
    monkeypatch.setattr(model.vlm, "states", reading(model))
    some = batch((1, 12, 3, 5), seed=3, known=False)
    told = model.predict_batch(some)
    heads = model.head_embeddings(some)
    expected = model.branch.inout(heads).squeeze(1).sigmoid()
    assert close(told.inout, expected, 1e-6)
    # Two people of a picture, in slots 1 and 3 of one row, then in different rows: outputs change places exactly.
    for one, other in ((2, 4), (2, 11)):
        order = list(range(some.people))
        order[one], order[other] = order[other], order[one]
        swapped = model.predict_batch(people_of(some, order))
        assert torch.equal(swapped.inout, told.inout[order])
        assert torch.equal(swapped.heatmap, told.heatmap[order])
    # The picture under the heatmap is the person's own.
    for person, image in enumerate(some.image_index.tolist()):
        alone = model.predict_batch(replace(people_of(some, [person]), images=some.images[image][None],
                                            image_index=torch.tensor([0]), image_ids=["x"], groups=["x"]))  # fmt: skip
        assert close(alone.heatmap[0], told.heatmap[person], 1e-4)


@torch.no_grad()
def test_a_heads_crop_matters_to_that_person(plain, monkeypatch):
    some = batch((2, 3), known=False)
    before = plain.predict_batch(some)
    heads = plain.head_embeddings(some)
    other = plain.head_encoder(torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    for person in range(some.people):
        changed = heads.clone()
        changed[person] = other[0]
        monkeypatch.setattr(plain, "head_embeddings", lambda _, changed=changed: changed)
        after = plain.predict_batch(some)
        elsewhere = some.image_index != some.image_index[person]
        assert (after.heatmap[person] - before.heatmap[person]).abs().max() > 1e-3
        assert close(after.heatmap[elsewhere], before.heatmap[elsewhere], 1e-4)


def test_image_tokens_are_row_by_row(plain):
    """Changing the pixels under one token moves, before the language model, that token alone."""
    some = batch((1,), side=64)
    vlm = plain.vlm
    rows = plain.scribe.rows([[some.head[0].tolist()]], None)
    patches, grid = plain.patches(some, [0])
    changed = some.images.clone()
    changed[:, :, 32:48, 16:32] = 255 - changed[:, :, 32:48, 16:32]  # row 2, column 1 of 4 x 4 tokens of 16 pixels
    others, _ = plain.patches(replace(some, images=changed), [0])
    places = patches.ne(others).any(2).nonzero()[:, 1] // 4  # 4 patches a token, together
    assert places.unique().tolist() == [2 * 4 + 1]
    marked = torch.zeros(1, rows.input_ids.shape[1], 1)
    marked[0, (rows.input_ids[0] == vlm.model.config.image_token_id).nonzero().flatten()[places[0]]] = 1
    assert image_tokens(rows, marked, plain.scribe.grid)[0, 0].nonzero().tolist() == [[2, 1]]
    assert grid.tolist() == [[1, 8, 8]]


@torch.no_grad()
@pytest.mark.parametrize("side", [16, 48, 160])
def test_any_size_of_picture(side):
    model = method(image_size=side, picture_size=0)
    for decode in (True, False):
        model.generates = decode
        prediction = model.predict_batch(batch((1, 2), side=side, known=False))
        assert prediction.heatmap.shape == (3, 64, 64)
        assert prediction.heatmap.isfinite().all()


# Training --------------------------------------------------------------------------------------------------------


def test_losses_are_equation_3(named):
    model, some = method(semantic=True, social=True, language_weight=0.5, heatmap_weight=7.0, inout_weight=2.0,
                         social_weight=3.0).train(), batch((2, 1, 3))  # fmt: skip
    prediction = model(some)
    losses = model.loss(prediction, some)
    extra, targets = prediction.extra, some.targets
    seen = [0, 1, 3]
    maps = gaussian_heatmap(targets.point[seen], (64, 64))
    drawn = extra["maps"].detach()
    expected = sum(float((drawn[p] - m).square().sum()) for p, m in zip(seen, maps, strict=True)) / 3 / 64**2
    losses = {name: loss.detach() for name, loss in losses.items()}
    assert float(losses["heatmap"]) == pytest.approx(7 * expected, rel=1e-4)
    probability = extra["inout_logit"].sigmoid().tolist()
    truth = {0: 1, 1: 1, 2: 0, 3: 1, 5: 0}
    surprise = [-math.log(probability[p] if y else 1 - probability[p]) for p, y in truth.items()]
    assert float(losses["inout"]) == pytest.approx(2 * sum(surprise) / 5, rel=1e-4)
    assert extra["pair_logits"].shape == (2 + 0 + 6, 3)
    for index, name in enumerate(("lah", "laeo", "sa")):
        said, label = prediction.extra[name].tolist(), targets.extra[name].tolist()
        assert said == pytest.approx(extra["pair_logits"][:, index].sigmoid().tolist(), abs=1e-6)
        surprise = [-math.log(p if y else 1 - p) for p, y in zip(said, label, strict=True) if y >= 0]
        assert float(losses[name]) == pytest.approx(3 * sum(surprise) / len(surprise), rel=1e-4)
    assert float(losses["language"]) == pytest.approx(0.5 * language_loss(model, some), rel=1e-4)


@torch.no_grad()
def language_loss(model: OmniGF, some: Batch) -> float:
    """Cross-entropy of the answers' tokens of annotated people, row by row without padding, by transformers."""
    people, images = model.row_people(some)
    total, count = 0.0, 0
    heads = model.head_embeddings(some)
    answers = model.answers(some.targets, [False] * some.people)
    for row, image in zip(people, images, strict=True):
        rows = model.scribe.rows([[some.head[p].tolist() for p in row]], [[answers[p] for p in row]])
        labels = torch.where(rows.learnt >= 0, rows.input_ids, -100)
        patches, grid = model.patches(some, [image])
        model.vlm._heads = heads[row]
        kinds = (rows.input_ids == model.vlm.model.config.image_token_id).int()
        out = model.vlm.model(input_ids=rows.input_ids, labels=labels, pixel_values=patches[0], image_grid_thw=grid,
                              mm_token_type_ids=kinds)  # fmt: skip
        model.vlm._heads = None
        total += float(out.loss) * int((labels >= 0).sum())
        count += int((labels >= 0).sum())
    return total / count


def test_pairs_know_who_looks(named):
    some = batch((1, 3, 2), known=False)
    person = torch.randn(6, named.vlm.dim, generator=torch.Generator().manual_seed(0))
    logits = named.branch.pair_logits(person, some.pairs)
    table = [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2), (4, 5), (5, 4)]
    assert some.pairs.tolist() == [list(pair) for pair in table]
    for row, (i, j) in enumerate(table):
        assert close(logits[row], named.branch.pairs(torch.cat([person[i], person[j]])), 1e-5)


def test_people_nobody_annotated_are_in_the_prompt_and_out_of_the_losses(plain):
    some = batch((2, 1, 3))
    model = method().train()
    prediction = model(some)
    assert 4 not in prediction.extra["token_person"].tolist()
    assert set(prediction.extra["token_person"].tolist()) == {0, 1, 2, 3, 5}
    maps, inout = prediction.extra["maps"], prediction.extra["inout_logit"]
    losses = model.loss(prediction, some)
    grads = torch.autograd.grad(losses["heatmap"] + losses["inout"], [maps, inout], retain_graph=True)
    assert not grads[0][[2, 4, 5]].any()
    assert not grads[1][4].any()
    assert grads[1][[0, 1, 2, 3, 5]].all()
    answers = model.answers(some.targets, [False] * 6)
    assert [answer.status for answer in answers] == ["inside", "inside", "outside", "inside", "unknown", "outside"]
    assert answers[0].point == tuple(round(float(value) * 999) for value in some.targets.point[0])


def test_hidden_answers_teach_the_gaze_branch_alone():
    model, some = method(hidden_share=1.0).train(), batch()
    prediction = model(some)
    losses = model.loss(prediction, some)
    assert not len(prediction.extra["token_loss"])
    assert float(losses["language"].detach()) == 0
    assert float(losses["heatmap"].detach()) > 0
    sum(losses.values()).backward()
    # In training with everything hidden the anchors are those of the quick mode.
    quick = method(decode="anchors").predict_batch(some)
    assert close(spread(prediction.extra["maps"]), quick.heatmap, 1e-3)


def test_a_batch_nobody_can_learn_from():
    model, some = method(semantic=True, social=True).train(), batch()
    some.targets.inout[:] = -1
    some.targets.extra = {}
    losses = model.loss(model(some), some)
    assert {name: float(loss.detach()) for name, loss in losses.items()} == dict.fromkeys(
        ("language", "heatmap", "inout", "lah", "laeo", "sa"), 0.0
    )
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("title", ROWS)
def test_rows_of_the_ablation(title):
    model = method(**ROWS[title])
    assert model.title == title
    some = batch((2, 3))
    model.train()
    prediction = model(some)
    losses = model.loss(prediction, some)
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    shows, speaks = model.branch is not None, ROWS[title].get("branches") != "gaze"
    assert set(losses) == {*(["language"] if speaks else []), *(["heatmap", "inout"] if shows else [])}
    if "zero-shot" in title:
        assert learning == {}
        assert model.export() == {}
    else:
        sum(losses.values()).backward()
        assert [name for name, p in learning.items() if p.grad is None] == []
    told = model.eval().predict_batch(replace(some, targets=None))
    assert (told.heatmap is not None) == shows
    assert (told.point is None) == shows
    assert ("text" in told.extra) == speaks
    assert told.inout.min() >= 0
    assert told.inout.max() <= 1
    if not shows:
        answers = [json.loads(text) for text in told.extra["text"]]
        for answer, point in zip(answers, told.point.tolist(), strict=True):
            expected = [value / 999 for value in answer.get("point_2d", (499.5, 499.5))]
            assert point == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("tuning", ["lora", "language", "full"])
def test_gradients_reach_what_learns_and_nothing_else(tuning):
    model = method(tuning=tuning, social=True, rank=4, hidden_share=0.0, checkpointing=tuning == "lora").train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    some = batch((2, 3))
    sum(model.loss(model(some), some).values()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    parts = {name.split(".")[0] for name in learning}
    assert parts == {"vlm", "head_encoder", "branch"}
    if tuning == "lora":
        adapted = {name for name in learning if name.startswith("vlm.")}
        assert all("language_model" in name and "lora_" in name for name in adapted)
        assert len(adapted) == 2 * 7 * 4
    assert any("visual" in name for name in learning) == (tuning == "full")


def test_a_few_steps_lower_every_loss():
    model, some = method(optimizer="muon", lr=2e-3, lr_heads=2e-3).train(), batch((2, 2))
    model.trainer = type("T", (), {"estimated_stepping_batches": 20})()
    optimizer, schedule = model.optimizer()
    seen = []
    for _ in range(20):
        losses = model.loss(model(some), some)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        schedule["scheduler"].step()
        seen.append({name: float(loss.detach()) for name, loss in losses.items()})
    assert {name: seen[-1][name] < 0.8 * seen[0][name] for name in seen[0]} == dict.fromkeys(seen[0], True), seen


# Hard cases ------------------------------------------------------------------------------------------------------


def test_more_people_than_the_limit(plain):
    some = batch((7, 2), known=False)
    model = method(people_limit=3)
    assert [len(row) for row in model.row_people(some)[0]] == [3, 3, 1, 2]
    assert model.row_people(some)[1] == [0, 0, 0, 1]
    together = model.predict_batch(some)
    parts = [model.predict_batch(people_of(some, chosen)) for chosen in ([0, 1, 2], [3, 4, 5], [6])]
    assert close(together.heatmap[:7], torch.cat([part.heatmap for part in parts]), 1e-3)
    assert together.extra["text"][:7] == [text for part in parts for text in part.extra["text"]]
    whole = plain.predict_batch(some)
    assert len(whole.extra["text"]) == 9
    with pytest.raises(ValueError, match="people_limit is at least 1"):
        method(people_limit=0)


def test_nobody_and_nothing(named):
    some = people_of(batch((2, 1)), [])
    for model in (named, method(branches="language")):
        prediction = model.predict_batch(some)
        assert len(prediction.inout) == 0
        for value in (prediction.heatmap, prediction.point):
            assert value is None or len(value) == 0
    some = people_of(batch((2, 1, 1)), [0, 1, 3])  # the second picture has nobody left
    alone = named.predict_batch(people_of(batch((2, 1, 1)), [3]))
    assert close(named.predict_batch(some).heatmap[2], alone.heatmap[0], 1e-3)


def test_boxes_of_any_kind(plain):
    some = batch((5,), known=False)
    some.head[0] = torch.tensor([0.5, 0.5, 0.5 + 1 / 96, 0.5 + 1 / 96])  # one pixel
    some.head[1] = torch.tensor([1.0, 1.0, 1.0, 1.0])  # no area, at the border
    some.head[2] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    some.head[3] = torch.nan
    prediction = plain.predict_batch(some)
    assert prediction.heatmap.isfinite().all()
    assert prediction.inout.isfinite().all()
    crops = head_crops(some.images, some.head, some.image_index, 32)
    assert crops.isfinite().all()
    assert not crops[3].any()
    pixel = some.images[0, :, 48, 48] / 255
    expected = (pixel - torch.tensor(IMAGE_MEAN)) / torch.tensor(IMAGE_STD)
    assert close(crops[0, :, 16, 16], expected, 0.2)  # within what bilinear sampling takes of its neighbours


def test_crops_are_the_pixels_of_the_box():
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    head = torch.tensor([[16 / 96, 8 / 64, 48 / 96, 40 / 64], [0.0, 0.0, 64 / 96, 1.0]])
    crops = head_crops(images, head, torch.tensor([1, 0]), 32)
    mean, deviation = (torch.tensor(each).view(3, 1, 1) for each in (IMAGE_MEAN, IMAGE_STD))
    assert close(crops[0], (images[1, :, 8:40, 16:48] / 255 - mean) / deviation, 1e-4)
    smaller = F.avg_pool2d(images[0, :, :, :64].float(), 2)  # twice as large: every cell is the mean of its pixels
    assert close(crops[1], (smaller / 255 - mean) / deviation, 1e-4)


def test_heatmaps_keep_order_and_place():
    maps = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    maps[1] = 0.25
    shown = spread(maps)
    assert shown.min() == 0
    assert shown.max() == 1
    assert not shown[1].any()
    assert torch.equal(shown[0].flatten().argsort(), maps[0].flatten().argsort())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"branches": "gaze", "semantic": True}, "semantic needs the language branch"),
        ({"branches": "language", "social": True}, "social needs the gaze branch"),
        ({"branches": "language", "decode": "anchors"}, "decode anchors needs both"),
        ({"constrained": False}, "constrained false"),
        ({"image_size": 100}, "multiple of 16 pixels, got 100; nearest: 96"),
    ],
)
def test_settings_that_exclude_each_other(settings, message):
    with pytest.raises(ValueError, match=message):
        method(**settings)


# Weights ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Qwen3-VL of another size in the files and classes of the real one, untied, without rows to spare."""
    place = tmp_path_factory.mktemp("models") / "Qwen3-VL-Nano"
    size = TinySize(text_width=64, text_layers=2, text_heads=2, text_kv_heads=1, vision_width=32, vision_layers=2,
                    vision_heads=2, deepstack=(1,), patch=16, tied=False)  # fmt: skip
    return build(place, size=size)


REAL = {"backbone_weights": "pretrained", "compute_dtype": "bfloat16", "tuning": "lora", "head_net": "resnet18",
        "head_size": 64, "social": True}  # fmt: skip


def test_a_folder_like_the_real_ones(folder, tmp_path):
    """LoRA on bfloat16 weights, a ResNet-18 for heads: trains, exports what it trained, and comes back."""
    model, some = method(backbone=str(folder), **REAL), batch((2, 3))
    assert model.weights_identity()["grade"] == "file"
    assert model.weights_identity()["name"] == "Qwen3-VL-Nano"
    assert model.vlm.identity["weights"].startswith("sha256:")
    model.train()
    sum(model.loss(model(some), some).values()).backward()
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is not None and p.grad.isfinite().all() and p.dtype == torch.float32 for p in learning.values())
    with torch.no_grad():
        for parameter in learning.values():
            parameter += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    weights = model.export()
    assert {name for name in weights if name.startswith("vlm.")} == {n for n in learning if "lora_" in n}
    assert {name.split(".")[0] for name in weights} == {"vlm", "head_encoder", "branch"}
    torch.save(weights, tmp_path / "weights.pt")
    again = method(backbone=str(folder), **REAL)
    again.load_export(torch.load(tmp_path / "weights.pt"))
    told, retold = (each.eval().predict_batch(replace(some, targets=None)) for each in (model, again))
    assert torch.equal(told.heatmap, retold.heatmap)
    assert told.extra["text"] == retold.extra["text"]
    checkpoint: dict = {}
    model.on_save_checkpoint(checkpoint)
    again.on_load_checkpoint(checkpoint)
    assert set(checkpoint["state_dict"]) == set(again.state_dict())


def test_weights_that_do_not_fit_are_told(plain, folder, tmp_path, monkeypatch):
    weights = plain.export()
    with pytest.raises(ValueError, match=r"do not fit OmniGF: missing: .*--model.backbone"):
        plain.load_export({name: value for name, value in weights.items() if "inout.0" not in name})
    wide = method(decoder_width=64).export()
    with pytest.raises(ValueError, match="of another shape: branch"):
        plain.load_export(wide)
    torch.save(weights, tmp_path / "earlier.pt")
    social = method(social=True)
    social.load_initial(tmp_path / "earlier.pt")  # pairs start afresh
    assert torch.equal(social.export()["branch.inout.0.weight"], weights["branch.inout.0.weight"])
    with pytest.raises(ValueError, match=r"missing: branch\.pairs"):
        social.load_export(weights)
    (tmp_path / "none").mkdir()
    with pytest.raises(WeightsError, match=r"none cannot be loaded .* or the id of a model on the hub"):
        load_vlm(str(tmp_path / "none"))
    with monkeypatch.context() as patch:
        patch.setattr(gaze_vlm, "TINY_WEIGHTS", tmp_path / "away.pt")
        with pytest.raises(WeightsError, match=r"no weights at .*away\.pt for tiny.*--model\.backbone_weights random"):
            load_vlm("tiny")
    with pytest.raises(WeightsError, match="no weights at"):
        load_vlm("tiny", tmp_path / "missing.pt")


def test_folders_with_something_wrong(folder, tmp_path):
    for name, change in {
        "kind": lambda config: config.update(model_type="qwen2_vl"),
        "deepstack": lambda config: config["vision_config"].update(deepstack_visual_indexes=[7]),
    }.items():
        place = tmp_path / name
        place.mkdir()
        for file in folder.iterdir():
            (place / file.name).write_bytes(file.read_bytes())
        config = json.loads((place / "config.json").read_text())
        change(config)
        (place / "config.json").write_text(json.dumps(config))
        with pytest.raises(WeightsError, match={"kind": "qwen2_vl model", "deepstack": "deepstack_visual"}[name]):
            load_vlm(str(place))
    place = tmp_path / "lacking"
    place.mkdir()
    for file in folder.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    state = load_file(place / "model.safetensors")
    state.pop("lm_head.weight")
    save_file(state, place / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"no weights for \['lm_head.weight'\]"):
        load_vlm(str(place))


def test_the_tiny_base_is_always_the_same_and_takes_a_file(tmp_path):
    one, other = load_vlm("tiny", "random"), load_vlm("tiny", "random")
    assert all(torch.equal(value, other.model.state_dict()[name]) for name, value in one.model.state_dict().items())
    assert method().weights_identity()["grade"] == "none"  # nothing was there before, and all of it learns
    assert method(tuning="lora").weights_identity()["grade"] == "random"
    trained = method()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter += 0.01
    torch.save(trained.export(), tmp_path / "warm.pt")
    warm = method(backbone_weights=str(tmp_path / "warm.pt"), tuning="lora")
    assert warm.weights_identity()["grade"] == "file"
    own = warm.vlm.model.get_input_embeddings().weight
    assert torch.equal(own, trained.vlm.model.get_input_embeddings().weight)
    assert torch.equal(own, warm.vlm.model.lm_head.weight)
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="do not fit this Qwen3-VL"):
        load_vlm("tiny", tmp_path / "other.pt")


def test_the_slot_token_takes_a_row_or_makes_one(folder, tmp_path):
    vlm = load_vlm(str(folder))
    tokenizer = vlm.processor.tokenizer
    assert tokenizer.encode(f"{GAZE_PAD}P0", add_special_tokens=False)[0] == vlm.slot_id
    assert tokenizer.encode("<|image_pad|>", add_special_tokens=False) == [vlm.model.config.image_token_id]
    before = AutoTokenizer.from_pretrained(folder)
    assert set(before.get_vocab()) | {GAZE_PAD} == set(tokenizer.get_vocab())
    # A model whose embedding is full.
    before.add_tokens([f"<|spare_{i}|>" for i in range(vlm.model.config.text_config.vocab_size - len(before))])
    full = tmp_path / "full"
    full.mkdir()
    for file in folder.iterdir():
        (full / file.name).write_bytes(file.read_bytes())
    before.save_pretrained(full)
    larger = load_vlm(str(full))
    assert larger.slot_id == vlm.model.config.text_config.vocab_size
    assert larger.model.get_input_embeddings().num_embeddings > larger.slot_id


def test_slots_and_heads_must_agree(plain):
    rows = plain.scribe.rows([[[0.1, 0.1, 0.2, 0.2]] * 3], None)
    patches, grid = plain.patches(batch((1,)), [0])
    with pytest.raises(ValueError, match="3 slots in the prompts for 2 head embeddings"):
        plain.vlm.states(rows, patches, grid, torch.zeros(2, plain.vlm.dim))


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
        with pytest.raises(WeightsError, match=r"broken\.pt do not fit the head encoder"):
            HeadEncoder("resnet18", 16, weights=tmp_path / "broken.pt")
    with pytest.raises(WeightsError, match="no weights of a head encoder"):
        HeadEncoder("small", 16, weights=tmp_path / "missing.pt")
    embedded = HeadEncoder("small", 16, scale=0.02)(crops)
    assert float(embedded.detach().square().mean().sqrt()) == pytest.approx(0.02, rel=0.01)


def test_shipped_weights_are_those_of_their_cards():
    for file in (gaze_vlm.TINY_WEIGHTS, SMALL_WEIGHTS):
        card = json.loads(file.with_suffix(".json").read_text())
        assert hashlib.sha256(file.read_bytes()).hexdigest() == card["sha256"]
        assert card["world"] == WORLD_VERSION
        assert file.stat().st_size < 6e6
    embedded = method(backbone_weights="pretrained", head_weights="embedded")
    assert embedded.weights_identity()["grade"] == "embedded"
    told = embedded.weights_identity()["head_encoder"]
    assert told == {"net": "small", "weights": "embedded", "sha256": file_digest(SMALL_WEIGHTS)}
    stored = torch.load(SMALL_WEIGHTS)
    assert all(
        torch.equal(value, stored[name].float()) for name, value in embedded.head_encoder.net.state_dict().items()
    )
    with pytest.raises(WeightsError, match=r"small_head\.pt do not fit the head encoder"):
        HeadEncoder("resnet18", 16, weights="embedded")


# Optimizers and recipes ------------------------------------------------------------------------------------------


def test_muon_is_that_of_torch():
    """Which orthogonalises in bfloat16: to a few per cent of a step."""
    shapes = [(64, 32), (32, 64), (64, 32), (32, 32)]
    generator = torch.Generator().manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    theirs = [torch.nn.Parameter(parameter.detach().clone()) for parameter in ours]
    start = [parameter.detach().clone() for parameter in ours]
    one, other = Muon(ours, 0.02, weight_decay=0.1), torch.optim.Muon(theirs, 0.02, weight_decay=0.1)
    for _ in range(4):
        for mine, its in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            its.grad = mine.grad.clone()
        one.step()
        other.step()
    for mine, its, first in zip(ours, theirs, start, strict=True):
        assert (mine - its).norm() < 0.02 * (its - first).norm()
    with pytest.raises(ValueError, match="for matrices"):
        Muon([torch.nn.Parameter(torch.zeros(3))], 0.02)


def test_two_optimizers_are_one(plain, tmp_path):
    def made():
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
        big = [net[0].weight]
        small = [{"params": [net[0].bias, *net[1].parameters()], "lr": 0.01}]
        return net, MuonAdamW(big, small, lr=0.1)

    def step(net, optimizer, schedule):
        def closure():
            optimizer.zero_grad()
            loss = net(torch.ones(3, 4)).square().sum()
            loss.backward()
            return loss

        loss = optimizer.step(closure)
        schedule.step()
        return float(loss)

    net, optimizer = made()
    schedule = warm_cosine(optimizer, 10, warm=0.2)["scheduler"]
    rates, losses = [], []
    for index in range(10):
        rates.append([group["lr"] for group in optimizer.param_groups])
        losses.append(step(net, optimizer, schedule))
        if index == 4:
            saved = [{k: v.clone() for k, v in net.state_dict().items()}, optimizer.state_dict(), schedule.state_dict()]
            torch.save(saved, tmp_path / "state.pt")
    assert losses[-1] < 0.5 * losses[0]
    assert [rate[0] for rate in rates[:3]] == pytest.approx([0.05, 0.1, 0.1])
    assert all(rate[1] == pytest.approx(rate[0] / 10) for rate in rates)
    assert all(later < earlier for earlier, later in pairwise(rate[0] for rate in rates[2:]))
    other, resumed = made()
    again = warm_cosine(resumed, 10, warm=0.2)["scheduler"]
    weights, state, place = torch.load(tmp_path / "state.pt")
    other.load_state_dict(weights)
    resumed.load_state_dict(state)
    again.load_state_dict(place)
    assert [step(other, resumed, again) for _ in range(5)] == losses[5:]
    chosen = {id(weight) for weight in matrices(plain.vlm)}
    names = {name for name, parameter in plain.vlm.named_parameters() if id(parameter) in chosen}
    assert names
    assert not any("embed" in name or "norm" in name or "lm_head" in name for name in names)
    assert sum("visual.blocks" in name for name in names) == 4 * 4


@pytest.mark.parametrize("dataset", ["gazefollow", "vat", "childplay", "gazehoi", "gazefollow_semantic", "vsgaze"])
@pytest.mark.parametrize("backbone", ["", "tiny"])
def test_recipes(dataset, backbone):
    option = [f"--model.backbone={backbone}"] if backbone else []
    values = resolve(["omnigf", dataset, "--dataset.root=x", *option]).values
    model = values["model"]
    assert model["semantic"] == (dataset in ("gazehoi", "gazefollow_semantic"))
    assert model["social"] == (dataset == "vsgaze")
    assert values["loader"]["people"] == ("all" if dataset == "vsgaze" else "labelled")
    if backbone:
        assert (model["tuning"], model["optimizer"], values["init"]) == ("language", "muon", None)
    else:
        assert (model["backbone"], model["tuning"], model["image_size"]) == ("Qwen/Qwen3-VL-4B-Instruct", "lora", 448)
        assert (values["loader"]["batch_size"], values["trainer"]["accumulate_grad_batches"]) == (8, 2)
        assert values["init"] == (None if dataset == "gazefollow" else "from:gazefollow")


@pytest.mark.parametrize("branches", ["language", "gaze", "both"])
def test_recipes_ask_of_no_branch_what_it_cannot_do(branches):
    model = resolve(["omnigf", "gazeworld", f"--model.branches={branches}"]).values["model"]
    assert model["semantic"] == (branches != "gaze")
    assert model["social"] == (branches != "language")


def test_answers_of_the_method_are_its_own_text(plain):
    prediction = plain.predict_batch(batch((3,), known=False))
    lines = "\n".join(f"P{i}: {text}" for i, text in enumerate(prediction.extra["text"]))
    assert all(isinstance(answer, Answer) for answer in parse_answers(lines, 3))
