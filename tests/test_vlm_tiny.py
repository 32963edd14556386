"""The tiny Qwen3-VL: the files that are written, what loads from them, and the mistakes that are caught."""

import hashlib
import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)

from gazebench.vlm.tiny import SPECIAL_TOKENS, TinySize, build, validate

ANSWER = 'P0: {"status": "inside", "point_2d": [12, 345]}'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def processor(folder):
    return AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def model(folder):
    return AutoModelForImageTextToText.from_pretrained(folder).eval()


def picture(seed=0, size=(96, 64)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def chat(image, answer=None):
    turns = [
        {"role": "system", "content": [{"type": "text", "text": "Be terse."}]},
        {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "And P0?"}]},
    ]
    return turns if answer is None else [*turns, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]


def encoded(processor, *chats, **settings):
    return processor.apply_chat_template(
        list(chats),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left"},
        **settings,
    )


def sums(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def test_loads_as_the_real_classes(folder, processor, model):
    assert type(model) is Qwen3VLForConditionalGeneration
    assert type(processor) is Qwen3VLProcessor
    assert 1.3e6 < sum(parameter.numel() for parameter in model.parameters()) < 1.5e6
    assert sum(file.stat().st_size for file in folder.iterdir()) < 8e6
    tokenizer = processor.tokenizer
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert model.generation_config.eos_token_id == ends
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id == ends[1]
    assert tokenizer.eos_token_id == ends[0]
    assert model.config.image_token_id == processor.image_token_id == tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == tokenizer.get_vocab()


def test_same_arguments_same_bytes(folder, tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert sums(build(tmp_path / "again")) == sums(folder)
    assert torch.equal(torch.get_rng_state(), before)
    other = sums(build(tmp_path / "other", seed=1))
    assert {name for name, digest in other.items() if digest != sums(folder)[name]} == {"model.safetensors"}


@pytest.mark.parametrize(
    "text",
    [
        ANSWER,
        '```json\n[{"bbox_2d": [0, 7, 640, 999], "label": "cup"}]\n```',
        "  spaces,\ttabs\r\n\n and  ends  ",
        "naïve Ærøskøbing, Ελληνικά, русский, العربية, हिन्दी, 日本語, 한국어, 👩‍👩‍👧 ½ ∞ \u0000 \u200b",
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|><|im_end|>",
    ],
)
def test_text_survives_the_tokenizer(processor, text):
    tokenizer = processor.tokenizer
    expected = unicodedata.normalize("NFC", text)  # Qwen's own rule
    assert tokenizer.decode(tokenizer(text)["input_ids"], clean_up_tokenization_spaces=False) == expected


def test_tokens_are_cut_as_qwen_does(processor):
    tokenizer = processor.tokenizer
    assert tokenizer.tokenize("[12, 345]") == ["[", "1", "2", ",", "Ġ", "3", "4", "5", "]"]
    assert tokenizer.tokenize(ANSWER)[0] == "P"
    assert tokenizer.tokenize("of P0")[-2:] == ["ĠP", "0"]  # another token than at the start of an answer
    assert len(tokenizer.tokenize(ANSWER)) == 24
    for token in SPECIAL_TOKENS:
        assert tokenizer.tokenize(token) == [token]
        assert tokenizer.decode(tokenizer(token)["input_ids"], skip_special_tokens=True) == ""
    assert len(tokenizer.tokenize("<|gaze_pad|>")) > 1


def test_a_special_token_fits_in_without_resizing(folder, model):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = model.get_input_embeddings().num_embeddings
    assert tokenizer.add_tokens(["<|gaze_pad|>"], special_tokens=True) == 1
    assert len(tokenizer) <= rows
    assert tokenizer.tokenize("<|gaze_pad|>") == ["<|gaze_pad|>"]


def test_template(processor):
    image = picture()
    start = (
        "<|im_start|>system\nBe terse.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>And P0?"
    )
    asked = f"{start}<|im_end|>\n<|im_start|>assistant\n"
    assert processor.apply_chat_template(chat(image), add_generation_prompt=True) == asked
    assert processor.apply_chat_template(chat(image, ANSWER)) == f"{asked}{ANSWER}<|im_end|>\n"
    plain = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes"}]
    expected = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"
    assert processor.apply_chat_template(plain) == expected
    video = [{"role": "user", "content": [{"type": "video"}]}]
    assert "<|vision_start|><|video_pad|><|vision_end|>" in processor.apply_chat_template(video)


def test_the_mask_is_the_answer_and_its_end(processor):
    long = ANSWER * 3
    batch = encoded(
        processor, chat(picture(), ANSWER), chat(picture(size=(160, 64)), long), return_assistant_tokens_mask=True
    )
    for ids, mask, answer in zip(batch["input_ids"], batch["assistant_masks"], (ANSWER, long), strict=True):
        assert processor.tokenizer.decode(ids[torch.as_tensor(mask).bool()]) == f"{answer}<|im_end|>"


def test_the_picture_counts(processor, model):
    batch = encoded(processor, chat(picture(0)), chat(picture(1)))
    assert (batch["input_ids"] == model.config.image_token_id).sum(1).tolist() == [6, 6]  # of 32 x 32 pixels each
    with torch.no_grad():
        one, other = model(**batch).logits[:, -1]
    assert (one - other).abs().max() > 0.1
    assert 0.5 < one.std() < 2  # a loud enough start, in every layer


def test_every_part_learns(processor, tmp_path):
    size = TinySize(
        text_width=32, text_layers=2, text_heads=2, text_kv_heads=1, head_dim=16, vision_width=32, vision_layers=2,
        vision_heads=2, deepstack=(1,), patch=8, tied=False,
    )  # fmt: skip
    small = AutoModelForImageTextToText.from_pretrained(build(tmp_path, size=size)).train()
    batch = encoded(AutoProcessor.from_pretrained(tmp_path), chat(picture(), ANSWER))
    small(**batch, labels=batch["input_ids"]).loss.backward()
    assert [name for name, tensor in small.named_parameters() if tensor.grad is None or not tensor.grad.any()] == []
    assert sum(parameter.numel() for parameter in small.parameters()) < 0.2e6


def test_another_corpus(tmp_path):
    words = ["zebra crossing"] * 50
    tokenizer = AutoTokenizer.from_pretrained(build(tmp_path, corpus=iter(words), size=TinySize(vocabulary=300)))
    assert tokenizer.tokenize("zebra crossing") == ["zebra", "Ġcrossing"]
    assert tokenizer.tokenize("status") == list("status")


def config(text=None, **vision):
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_interleaved": True, "mrope_section": [6, 5, 5]}
    return Qwen3VLConfig(
        text_config={"head_dim": 32, "num_hidden_layers": 4, "rope_parameters": rope} | (text or {}),
        vision_config={"depth": 3, "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 256} | vision,
    )


def mrope(*section):
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": list(section)}}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (config(deepstack_visual_indexes=[0, 3]), r"deepstack_visual_indexes \[0, 3\].*from 0 to 2"),
        (config(deepstack_visual_indexes=[-1]), "deepstack_visual_indexes"),
        (config(deepstack_visual_indexes=[1, 1]), "distinct"),
        (config({"num_hidden_layers": 1}), "2 deepstack levels for 1 language layers"),
        (config(mrope(24, 20, 20)), r"mrope_section \[24, 20, 20\].*half of head_dim, 16"),
        (config({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}), r"mrope_section \[24, 20, 20\]"),
        (config(mrope(8, 8)), "three numbers"),
        (config(mrope(0, 8, 8)), "more than a third"),
        (config(num_position_embeddings=200), "num_position_embeddings 200"),
    ],
)
def test_silent_mistakes_are_told(wrong, message):
    with pytest.raises(ValueError, match=message):
        validate(wrong)


def test_all_mistakes_are_told_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"deepstack_visual_indexes \[5\].*num_position_embeddings 3"):
        validate(config(deepstack_visual_indexes=[5], num_position_embeddings=3))
    with pytest.raises(ValueError, match="deepstack_visual_indexes"):
        build(tmp_path / "none", size=TinySize(deepstack=(3,)))
    assert not (tmp_path / "none").exists()


def test_sound_configurations_pass():
    validate(config())
    validate(config(deepstack_visual_indexes=[]))
    validate(Qwen3VLConfig())
    hub = {"rope_theta": 5e6, "rope_scaling": {"rope_type": "default", "mrope_section": [24, 20, 20]}, "head_dim": 128}
    validate(Qwen3VLConfig(text_config=hub))  # as written in the files on the hub
