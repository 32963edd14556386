"""Asking a model in this process, and behind ``transformers serve``: a tiny Qwen3-VL in both places."""

import contextlib
import functools
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from itertools import count
from types import SimpleNamespace

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationMixin,
    LlavaConfig,
    Qwen3Config,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
)

from gazebench.vlm import local
from gazebench.vlm.local import LocalModel
from gazebench.vlm.messages import Decoding, EncodedImage, Failure, Message, Request, VLMError

on_cpu = functools.partial(LocalModel, device="cpu")  # and so in float32
SHORT = Decoding(max_tokens=6)
CUP = '[{"bbox_2d": [120, 40, 385, 777], "label": "cup"}]'
DOG = '[{"bbox_2d": [3, 0, 30, 999], "label": "dog"}]'


def encoded(image, form="PNG"):
    stream = io.BytesIO()
    image.save(stream, form)
    return EncodedImage(stream.getvalue(), f"image/{form.lower()}", image.size)


def noise(seed, size=(96, 64)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels))


def asked(image, text="Where does P0 look?"):
    return (Message("system", ("Be terse.",)), Message("user", (image, text)))


RED, BLUE = (encoded(Image.new("RGB", (96, 64), colour)) for colour in ("red", "blue"))
RAGGED = [
    Request(f"person-{i}", asked(noise(i, (64 + 32 * i, 64 + 16 * (i % 3))), "P0?" + " And then?" * i), SHORT)
    for i in range(6)
]
RAGGED.insert(3, Request("no image", (Message("user", ("Hello", " there")),), SHORT))
RAGGED.insert(5, Request("two images", (Message("user", (noise(7), "against ", noise(8), "?")),), SHORT))


def overfit(folder, lessons, steps=60):
    """Teaches the model in ``folder`` its answers word for word; ``lessons`` are (messages, answer)."""
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    chats = [[*_chat(messages), {"role": "assistant", "content": answer}] for messages, answer in lessons]
    batch = processor.apply_chat_template(
        chats, tokenize=True, return_dict=True, return_tensors="pt", return_assistant_tokens_mask=True,
        processor_kwargs={"padding": True},
    )  # fmt: skip
    labels = batch["input_ids"].masked_fill(~torch.as_tensor(batch.pop("assistant_masks")).bool(), -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(steps):
        loss = model(**batch, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.01:
            break
    model.save_pretrained(folder)
    return loss.item()


def _chat(messages):
    return [{"role": turn.role, "content": [_part(part) for part in turn.parts]} for turn in messages]


def _part(part):
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "image", "image": Image.open(io.BytesIO(part.data))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, save_vlm):
    return save_vlm(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def taught(folder):
    place = shutil.copytree(folder, folder.with_name("taught"))
    assert overfit(place, [(asked(RED), CUP), (asked(BLUE), DOG)]) < 0.05
    return place


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def texts(model, requests):
    return {reply.key: reply.text for reply in model.ask(requests)}


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def step_by_step(folder, request):
    """The likeliest tokens, each from a forward pass of its own over everything: no padding, no batch, no cache."""
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    prompt = processor.apply_chat_template(_chat(request.messages), add_generation_prompt=True)
    images = [
        _part(part)["image"] for turn in request.messages for part in turn.parts if isinstance(part, EncodedImage)
    ]
    inputs = processor(text=[prompt], images=images or None, return_tensors="pt")
    length = inputs["input_ids"].shape[1]
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    for _ in range(request.decoding.max_tokens):
        with torch.no_grad():
            scores = model(**inputs).logits[0, -1]
        scores[[getattr(model.config, name) for name in names]] = -torch.inf
        inputs["input_ids"] = torch.cat([inputs["input_ids"], scores.argmax().view(1, 1)], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        inputs["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, 1))
    return processor.tokenizer.decode(inputs["input_ids"][0, length:], skip_special_tokens=True), length


def test_answers_are_those_of_the_model_whoever_shares_the_batch(folder):
    batched = {reply.key: reply for reply in on_cpu(folder).ask(RAGGED)}
    assert list(batched) == [request.key for request in RAGGED]
    assert texts(on_cpu(folder, batch_size=1), RAGGED) == {key: reply.text for key, reply in batched.items()}
    assert len({reply.text for reply in batched.values()}) > 4
    for request in RAGGED[2:6]:
        reply = batched[request.key]
        text, length = step_by_step(folder, request)
        assert (reply.text, reply.tokens, reply.finish_reason) == (text, (length, 6), "length")
        assert reply.seconds > 0


def test_word_for_word_and_by_what_is_seen(taught):
    requests = [Request("blue", asked(BLUE)), Request("red", asked(RED))]
    replies = {reply.key: reply for reply in on_cpu(taught).ask(requests)}
    assert {key: reply.text for key, reply in replies.items()} == {"red": CUP, "blue": DOG}
    tokenizer = AutoProcessor.from_pretrained(taught).tokenizer
    assert replies["red"].finish_reason == "stop"
    jpeg = encoded(Image.open(io.BytesIO(RED.data)), "JPEG")
    assert texts(on_cpu(taught), [Request("red", asked(jpeg))]) == {"red": CUP}
    full = len(tokenizer(CUP)["input_ids"]) + 1  # and the token that ends it
    assert replies["red"].tokens[1] == full
    requests = [Request(str(limit), asked(RED), Decoding(max_tokens=limit)) for limit in (full, full - 1, 3)]
    reasons = {reply.key: (reply.finish_reason, reply.tokens[1]) for reply in on_cpu(taught).ask(requests)}
    assert reasons == {str(full): ("stop", full), str(full - 1): ("length", full - 1), "3": ("length", 3)}


def test_the_probability_of_yes_is_that_of_the_step_that_says_it(folder, monkeypatch):
    monkeypatch.setattr(local, "verdict_token", lambda tokens: 0)  # as if every first token were a verdict
    requests = [Request(str(index), asked(image), SHORT, p_yes=True) for index, image in enumerate((RED, BLUE))]
    replies = list(on_cpu(folder).ask([*requests, Request("without", asked(RED), SHORT)]))
    assert replies[2].p_yes is None
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    yes, no = processor.tokenizer.convert_tokens_to_ids(["yes", "no"])
    for reply, request, image in zip(replies, requests, (RED, BLUE), strict=False):
        prompt = processor.apply_chat_template(_chat(request.messages), add_generation_prompt=True)
        inputs = processor(text=[prompt], images=[Image.open(io.BytesIO(image.data))], return_tensors="pt")
        with torch.no_grad():
            odds = model(**inputs).logits[0, -1].softmax(-1)
        assert reply.p_yes == pytest.approx(float(odds[yes] / (odds[yes] + odds[no])), abs=1e-5)
    monkeypatch.undo()
    assert {reply.p_yes for reply in on_cpu(folder).ask(requests)} == {None}, "none of them says yes or no"


def test_requests_are_drawn_a_batch_ahead(folder):
    drawn = []

    def endless():
        for i in count():
            drawn.append(i)
            yield Request(str(i), asked(RED), Decoding(max_tokens=1 + i % 2))

    model = on_cpu(folder, batch_size=3)
    replies = model.ask(endless())
    assert drawn == []
    first = next(replies)
    assert drawn == [0, 1, 2]
    rest = [next(replies) for _ in range(3)]
    assert drawn == [0, 1, 2, 3, 4, 5]
    assert [reply.key for reply in (first, *rest)] == ["0", "2", "1", "3"]  # one decoding after the other
    replies.close()
    assert len(drawn) == 6


def test_drawn_answers_hang_on_seed_and_key_alone(folder):
    def decoding(**settings):
        return Decoding(max_tokens=6, **settings)

    def ask(model, *settings, key="k"):
        return texts(model, [Request(f"{key}{i}", asked(RED), each) for i, each in enumerate(settings)])

    model, alone = on_cpu(folder), on_cpu(folder, batch_size=1)
    warm = decoding(temperature=1.0)
    many = ask(model, *[warm] * 5)
    assert len(set(many.values())) == 5
    assert ask(alone, *[warm] * 5) == many
    state = torch.get_rng_state()
    assert ask(model, warm) == {"k0": many["k0"]}
    assert torch.equal(torch.get_rng_state(), state)
    other = ask(model, decoding(temperature=1.0, seed=1))
    assert other["k0"] not in many.values()
    likeliest = ask(model, decoding())["k0"]
    assert set(ask(model, decoding(temperature=1e-3), decoding(temperature=1.0, top_p=1e-6)).values()) == {likeliest}


def test_draws_follow_the_probabilities():
    scores = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0]).log()
    keys = [str(i) for i in range(4000)]
    batch = scores.repeat(len(keys), 1)

    def shares(**settings):
        tokens = local._Draw(Decoding(**settings), keys, torch.device("cpu"))(None, batch.clone()).argmax(1)
        return tokens.bincount(minlength=5) / len(keys)

    sigma = 0.5 / len(keys) ** 0.5
    assert (shares(temperature=1.0) - scores.exp()).abs().max() < 4 * sigma
    assert (shares(temperature=0.5) - (2 * scores).softmax(0)).abs().max() < 4 * sigma
    assert (shares(temperature=1.0, top_p=0.6) - torch.tensor([4, 3, 0, 0, 0]) / 7).abs().max() < 4 * sigma


def test_neither_defaults_of_the_model_nor_tokens_that_stand_for_images(folder, copy, monkeypatch):
    habits = {"do_sample": True, "temperature": 3.0, "top_k": 5, "repetition_penalty": 3.0, "max_new_tokens": 2}
    edit(copy / "generation_config.json", lambda content: content.update(habits))
    expected = texts(on_cpu(folder), RAGGED[:2])
    assert texts(on_cpu(copy), RAGGED[:2]) == expected
    forward = Qwen3VLForConditionalGeneration.forward

    @functools.wraps(forward)
    def fond_of_images(self, *args, **kwargs):
        output = forward(self, *args, **kwargs)
        output.logits[..., [self.config.image_token_id, self.config.vision_start_token_id]] += 1e4
        return output

    monkeypatch.setattr(Qwen3VLForConditionalGeneration, "forward", fond_of_images)
    assert texts(on_cpu(folder), RAGGED[:2]) == expected


def test_an_image_is_decoded_once(folder, monkeypatch):
    opened = []
    monkeypatch.setattr(local, "Image", SimpleNamespace(open=lambda stream: opened.append(1) or Image.open(stream)))
    requests = [Request(str(i), asked((RED, BLUE)[i // 4]), Decoding(max_tokens=1)) for i in range(8)]
    assert len(list(on_cpu(folder, batch_size=3).ask(requests))) == 8
    assert len(opened) == 2


def test_images_that_cannot_be_shown_fail_alone(folder):
    sliver = encoded(Image.new("RGB", (1, 300)))
    good = Request("good", asked(RED), SHORT)
    requests = [
        Request("rubbish", asked(EncodedImage(b"no image", "image/png", (1, 1))), SHORT),
        good,
        Request("cut", asked(EncodedImage(RED.data[:60], "image/png", RED.size)), SHORT),
        Request("sliver", asked(sliver), SHORT),
    ]
    replies = {reply.key: reply for reply in on_cpu(folder).ask(requests)}
    assert {key for key, reply in replies.items() if isinstance(reply, Failure)} == {"rubbish", "cut", "sliver"}
    assert "cannot be decoded" in replies["rubbish"].reason
    assert "aspect ratio" in replies["sliver"].reason
    assert replies["good"].text == texts(on_cpu(folder), [good])["good"]


def test_pixel_limits(folder):
    request = Request("k", asked(noise(0, (256, 256))), Decoding(max_tokens=1))

    def tokens(**limits):  # an image token stands for 16 x 16 pixels
        (reply,) = on_cpu(folder, **limits).ask([request])
        return reply.tokens[0]

    assert tokens() - tokens(max_pixels=128 * 128) == 16 * 16 - 8 * 8
    assert tokens(min_pixels=320 * 320, max_pixels=320 * 320) - tokens() == 20 * 20 - 16 * 16
    assert on_cpu(folder, max_pixels=16384).identity()["max_pixels"] == 16384


def test_upright_as_servers_show_it(folder):
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(io.BytesIO(noise(3).data)).save(stream, "PNG", exif=exif)
    lying = EncodedImage(stream.getvalue(), "image/png", (64, 96))
    upright = encoded(Image.open(io.BytesIO(noise(3).data)).transpose(Image.Transpose.ROTATE_270))
    one, other = (texts(on_cpu(folder), [Request("k", asked(each), SHORT)]) for each in (lying, upright))
    assert one == other


def test_identity_names_what_counts_and_no_place(folder, copy, monkeypatch):
    model = on_cpu(copy)
    before = model.identity()
    assert before == model.identity() == on_cpu(copy, batch_size=2).identity()
    assert json.loads(json.dumps(before)) == before
    assert before | {"model": "tiny"} == on_cpu(folder).identity()
    assert {key: before[key] for key in ("backend", "model", "revision", "dtype")} == {
        "backend": "transformers", "model": "copy", "revision": "", "dtype": model.dtype,
    }  # fmt: skip
    assert str(copy.parent) not in json.dumps(before)
    monkeypatch.chdir(copy)
    assert on_cpu(".").identity() == before
    half = on_cpu(copy, revision="v2", dtype="bfloat16")
    assert half.identity() == before | {"revision": "v2", "dtype": "bfloat16"}
    (reply,) = half.ask([Request("k", asked(RED), SHORT)])
    assert reply.tokens[1] == 6
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text() + "\n")
    changed = on_cpu(copy).identity()
    assert changed["settings"] != before["settings"]
    assert changed["weights"] == before["weights"]
    weights = load_file(copy / "model.safetensors")
    next(iter(weights.values())).add_(1)
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    assert on_cpu(copy).identity()["weights"] != before["weights"]


def test_nothing_is_loaded_before_it_is_needed(copy):
    (copy / "model.safetensors").write_bytes(b"")
    model = on_cpu(copy)
    assert list(model.ask([])) == []
    with pytest.raises(VLMError, match=str(copy)):
        next(model.ask(RAGGED))


@pytest.mark.parametrize(
    ("files", "options", "named"),
    [
        (None, {}, "neither a folder"),
        ((), {}, "complete folder"),
        ((LlavaConfig,), {"max_pixels": 4096}, "llava.*min_pixels"),
        ((Qwen3Config,), {}, "qwen3 .*no images"),
    ],
)
def test_folders_that_are_no_model(tmp_path, files, options, named):
    if files is not None:
        (tmp_path / "some").mkdir()
        for config in files:
            config().save_pretrained(tmp_path / "some")
    with pytest.raises(VLMError, match=named):
        on_cpu(tmp_path / "some", **options)


def test_unusable_models_are_told(folder, copy):
    with pytest.raises(ValueError, match="batch_size"):
        on_cpu(folder, batch_size=0)
    weights = load_file(copy / "model.safetensors")
    save_file({key: value for key, value in weights.items() if "merger" not in key}, copy / "model.safetensors")
    with pytest.raises(VLMError, match="deepstack_merger_list"):
        next(on_cpu(copy).ask(RAGGED))
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(VLMError, match="chat template"):
        next(on_cpu(copy).ask(RAGGED))
    (copy / "model.safetensors").unlink()
    with pytest.raises(VLMError, match="safetensors"):
        on_cpu(copy)
    edit(copy / "config.json", lambda config: config["vision_config"].update(deepstack_visual_indexes=[0, 7]))
    with pytest.raises(VLMError, match=r"deepstack_visual_indexes \[0, 7\].*config\.json"):
        on_cpu(copy)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda(folder):
    model = LocalModel(folder)
    assert (model.device.type, model.dtype) == ("cuda", "bfloat16")
    warm = Request("warm", asked(RED), Decoding(max_tokens=6, temperature=1.0))
    assert {reply.tokens[1] for reply in model.ask([*RAGGED, warm])} <= set(range(1, 7))
    exact = LocalModel(folder, dtype="float32")
    assert texts(exact, RAGGED) == texts(LocalModel(folder, dtype="float32", batch_size=1), RAGGED)
    cold = Request("cold", asked(BLUE), warm.decoding)
    assert texts(exact, [warm])["warm"] == texts(exact, [cold, warm])["warm"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_no_cuda_is_told():
    with pytest.raises(VLMError, match="device='cpu'"):
        LocalModel("anything", device="cuda")


def test_too_little_memory_is_told(folder, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    model = on_cpu(folder)
    monkeypatch.setattr(GenerationMixin, "generate", full)
    with pytest.raises(VLMError, match="batch_size"):
        next(model.ask(RAGGED))
    monkeypatch.setattr(Qwen3VLModel, "__init__", full)
    with pytest.raises(VLMError, match="does not fit"):
        next(on_cpu(folder).ask(RAGGED))


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    """The commit of ``some/model`` in a cache of its own, as the hub's library keeps it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef0123456789abcdef01234567"
    place = tmp_path / "models--some--model"
    shutil.copytree(folder, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    return commit


def test_without_a_network_the_hub_is_given_up_at_once(folder, hub, monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr(local.HfApi, "model_info", unreachable)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    start = time.perf_counter()
    with pytest.raises(VLMError, match=r"ConnectionError: no route.*hf download other/model"):
        on_cpu("other/model")
    with pytest.raises(VLMError, match="some/model"):
        on_cpu("some/model", revision="v9")
    assert time.perf_counter() - start < 5
    fetched = on_cpu("some/model")
    assert fetched.identity() == {
        "backend": "transformers", "model": "some/model", "revision": hub, "dtype": fetched.dtype,
    }  # fmt: skip
    assert texts(fetched, RAGGED[:1]) == texts(on_cpu(folder), RAGGED[:1])


def test_all_files_are_of_one_commit(hub, monkeypatch):
    asked_for = []

    def spied(self, auto, **settings):
        asked_for.append(self._source["revision"])
        return fetched(self, auto, **settings)

    fetched = LocalModel._fetched
    monkeypatch.setattr(LocalModel, "_fetched", spied)
    monkeypatch.setattr(local.HfApi, "model_info", lambda *args, **kwargs: None)  # the hub gives it
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # but it is here already
    model = on_cpu("some/model")
    list(model.ask(RAGGED[:1]))
    assert asked_for == ["main", hub, hub]
    assert on_cpu("some/model", revision=hub).identity() == model.identity()


@pytest.fixture
def served(taught, tmp_path):
    """The address of a server of the taught model."""
    for name in ("fastapi", "uvicorn"):
        pytest.importorskip(name, reason=f"{name} not installed: pip install 'transformers[serving]'")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    start = "from transformers.cli.transformers import main; main()"
    options = ["--host", *address.replace(":", " --port ").split(), "--device", "cpu", "--dtype", "float32"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    log = tmp_path / "log"
    # -P: the folder it is started from is nowhere to import from.
    server = subprocess.Popen(
        [sys.executable, "-P", "-c", start, "serve", str(taught), *options],
        stdout=log.open("w"), stderr=subprocess.STDOUT, env=environment, cwd=tmp_path, start_new_session=True,
    )  # fmt: skip
    try:
        for _ in range(600):
            assert server.poll() is None, log.read_text()
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://{address}/health", timeout=1).close()
                break
            time.sleep(0.2)
        yield f"http://{address}/v1"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.slow
def test_a_server_gives_the_same_answers(served, taught):
    """Only a taught model's: a random one writes image tokens there, which this backend suppresses."""
    from gazebench.vlm.openai_server import OpenAIServer

    requests = [Request("red", asked(RED)), Request("blue", asked(BLUE)), Request("cut", asked(RED), SHORT)]
    here = {reply.key: reply for reply in on_cpu(taught).ask(requests)}
    there = {reply.key: reply for reply in OpenAIServer(base_url=served, model=str(taught)).ask(requests)}
    assert here["red"].text == CUP
    for key, reply in here.items():
        assert (reply.text, reply.finish_reason, reply.tokens) == (
            there[key].text, there[key].finish_reason, there[key].tokens,
        )  # fmt: skip
