"""The embedded Qwen3-VL: its files, what loads from them, how it reads and learns; mistakes in configurations."""

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

from gazebench.datasets.gazeworld.models import TINY_VLM_FILES, random_vlm, tiny_vlm
from gazebench.vlm.local import validate

ANSWER = 'P0: {"status": "inside", "point_2d": [12, 345]}'


@pytest.fixture(scope="module")
def folder(tmp_path_factory, save_vlm):
    return save_vlm(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(TINY_VLM_FILES)


@pytest.fixture(scope="module")
def model(folder):
    return AutoModelForImageTextToText.from_pretrained(folder)


def noise(seed=0, size=(64, 96)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def chat(image, answer=None):
    turns = [
        {"role": "system", "content": [{"type": "text", "text": "Be terse."}]},
        {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "And P0?"}]},
    ]
    return turns if answer is None else [*turns, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]


def encoded(processor, *chats, **settings):
    padding = {"padding": True, "padding_side": "left"}
    made = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "processor_kwargs": padding}
    return processor.apply_chat_template(list(chats), **made, **settings)


def digests(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def test_loads_as_the_real_classes(processor, model):
    assert (type(model), type(processor)) == (Qwen3VLForConditionalGeneration, Qwen3VLProcessor)
    end, padding, image = processor.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>", "<|image_pad|>"])
    assert (processor.tokenizer.eos_token_id, model.generation_config.eos_token_id) == (end, [end, padding])
    assert model.generation_config.pad_token_id == processor.tokenizer.pad_token_id == padding
    assert model.config.image_token_id == processor.image_token_id == image


def test_the_embedded_weights_fit_model_and_tokenizer():
    model, processor, file = tiny_vlm()
    own, stored = model.state_dict(), torch.load(file, weights_only=True)
    assert {name: tensor.shape for name, tensor in stored.items()} == {
        name: tensor.shape
        for name, tensor in own.items()
        if name != "lm_head.weight"  # tied
    }
    numbers = processor.tokenizer.get_vocab()
    assert hashlib.sha256("\n".join(sorted(numbers, key=numbers.get)).encode()).hexdigest()[:16] == "b87c78519a785f44"


def test_same_seed_same_bytes(folder, tmp_path, save_vlm):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert digests(save_vlm(tmp_path / "again")) == digests(folder)
    assert torch.equal(torch.get_rng_state(), before)
    other = digests(save_vlm(tmp_path / "other", seed=1))
    assert {name for name, digest in other.items() if digest != digests(folder)[name]} == {"model.safetensors"}


@pytest.mark.parametrize(
    "text",
    [
        '```json\n[{"bbox_2d": [0, 7, 640, 999], "label": "cup"}]\n```  spaces,\ttabs\r\n\n and  ends  ',
        "naïve Ærøskøbing, Ελληνικά, русский, العربية, हिन्दी, 日本語, 한국어, 👩‍👩‍👧 ½ ∞ \u0000 \u200b",
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|><|im_end|>",
    ],
)
def test_text_survives_the_tokenizer(processor, text):
    tokenizer = processor.tokenizer
    expected = unicodedata.normalize("NFC", text)  # as Qwen's tokenizer does
    assert tokenizer.decode(tokenizer(text)["input_ids"], clean_up_tokenization_spaces=False) == expected


def test_tokens_are_cut_as_qwen_does(folder, model):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.tokenize("[12, 345]") == ["[", "1", "2", ",", "Ġ", "3", "4", "5", "]"]
    assert tokenizer.tokenize(ANSWER)[0] == "P"
    assert tokenizer.tokenize("of P0")[-2:] == ["ĠP", "0"]  # another token than at the start of an answer
    for token in ("<|im_end|>", "<|image_pad|>", "<|box_start|>"):
        assert tokenizer.tokenize(token) == [token]
        assert tokenizer.decode(tokenizer(token)["input_ids"], skip_special_tokens=True) == ""
    assert len(tokenizer.tokenize("<|gaze_pad|>")) > 1
    assert tokenizer.add_tokens(["<|gaze_pad|>"], special_tokens=True) == 1
    assert len(tokenizer) <= model.get_input_embeddings().num_embeddings, "it fits in without resizing"
    assert tokenizer.tokenize("<|gaze_pad|>") == ["<|gaze_pad|>"]


def test_template_and_the_mask_of_the_answer_with_its_end(processor):
    start = "<|im_start|>system\nBe terse.<|im_end|>\n<|im_start|>user\n"
    start += "<|vision_start|><|image_pad|><|vision_end|>And P0?"
    asked = f"{start}<|im_end|>\n<|im_start|>assistant\n"
    assert processor.apply_chat_template(chat(noise()), add_generation_prompt=True) == asked
    assert processor.apply_chat_template(chat(noise(), ANSWER)) == f"{asked}{ANSWER}<|im_end|>\n"
    plain = processor.apply_chat_template([{"role": "user", "content": "Hello"}])
    assert plain == "<|im_start|>user\nHello<|im_end|>\n"
    answers = (ANSWER, ANSWER * 3)
    chats = chat(noise(), answers[0]), chat(noise(size=(64, 160)), answers[1])
    batch = encoded(processor, *chats, return_assistant_tokens_mask=True)
    for ids, mask, answer in zip(batch["input_ids"], batch["assistant_masks"], answers, strict=True):
        assert processor.tokenizer.decode(ids[torch.as_tensor(mask).bool()]) == f"{answer}<|im_end|>"


def test_the_image_counts(processor, model):
    batch = encoded(processor, chat(noise(0)), chat(noise(1)))
    assert (batch["input_ids"] == model.config.image_token_id).sum(1).tolist() == [24, 24]  # of 16 x 16 pixels each
    with torch.no_grad():
        one, other = model(**batch).logits[:, -1]
    assert (one - other).abs().max() > 0.1
    assert 0.5 < one.std() < 2  # a loud enough start, in every layer


def test_every_part_of_another_size_learns():
    text = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    vision = {"hidden_size": 32, "depth": 2, "num_heads": 2, "deepstack_visual_indexes": [1], "patch_size": 16}
    small, processor = random_vlm(text=text, vision=vision, tie_word_embeddings=False)
    batch = encoded(processor, chat(noise(), ANSWER))
    assert (batch["input_ids"] == small.config.image_token_id).sum() == 6
    small.train()(**batch, labels=batch["input_ids"]).loss.backward()
    assert [name for name, tensor in small.named_parameters() if tensor.grad is None or not tensor.grad.any()] == []


def mrope(*section):
    written = {"mrope_section": list(section)} if section else {}
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, **written}}


def config(text=None, **vision):
    text = {"head_dim": 32, "num_hidden_layers": 4, **mrope(6, 5, 5), **(text or {})}
    vision = {"depth": 3, "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 256, **vision}
    return Qwen3VLConfig(text_config=text, vision_config=vision)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (config(deepstack_visual_indexes=[0, 3]), "deepstack_visual_indexes"),
        (config(deepstack_visual_indexes=[-1]), "deepstack_visual_indexes"),
        (config(deepstack_visual_indexes=[1, 1]), "deepstack_visual_indexes"),
        (config({"num_hidden_layers": 1}), "2 deepstack levels"),
        (config(mrope(24, 20, 20)), "mrope_section"),
        (config(mrope()), "mrope_section"),
        (config(mrope(8, 8)), "mrope_section"),
        (config(mrope(0, 8, 8)), "mrope_section"),
        (config(num_position_embeddings=200), "num_position_embeddings"),
        (config(deepstack_visual_indexes=[5], num_position_embeddings=3), r"deepstack.*num_position_embeddings"),
    ],
)
def test_mistakes_that_transformers_accepts_are_named(wrong, named):
    with pytest.raises(ValueError, match=named):
        validate(wrong)


def test_sound_configurations_pass():
    hub = {"rope_theta": 5e6, "rope_scaling": {"rope_type": "default", "mrope_section": [24, 20, 20]}, "head_dim": 128}
    for sound in (config(), config(deepstack_visual_indexes=[]), Qwen3VLConfig(), Qwen3VLConfig(text_config=hub)):
        validate(sound)
    validate(Qwen3VLConfig.from_pretrained(TINY_VLM_FILES))
