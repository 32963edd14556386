"""A vision-language model in this process, through transformers: on one GPU, or a small model on the CPU."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from PIL import Image, ImageOps
from torch import Tensor
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from gazebench.core.errors import brief, some
from gazebench.core.files import file_digest
from gazebench.core.known_weights import digests
from gazebench.vlm.messages import Backend, Decoding, Dtype, EncodedImage, Failure, Message, Reply, Request, VLMError
from gazebench.vlm.parsing import bare, verdict_token

# Files that answers depend on besides the weights: configuration, processor, tokenizer and chat template.
SETTINGS: Final = ("*.json", "*.jinja", "*.txt")
# Tokens that stand for images. Weak models write them, but they are no text and break a later pass over the answer.
PLACEHOLDERS: Final = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
HUB_TIMEOUT: Final = 10.0


class _Loaded(NamedTuple):
    model: Any
    processor: Any
    ends: frozenset[int]


class LocalModel(Backend):
    """A model of transformers that takes images and text, e.g. a Qwen3-VL.

    The configuration is read at once, the weights with the first request. ``batch_size`` requests are taken at a time,
    and those with the same decoding are generated together. A model's own sampling defaults (top_k, repetition penalty
    ...) are ignored, and so is a request's schema.

    An answer does not depend on the other requests of its batch, up to rounding: padding and shapes change the last
    bits, which rarely matters in float32, while bfloat16 sometimes leads to another token. At a temperature above 0 the
    answer depends on ``decoding.seed``, the request's ``key`` and the kind of device.

    Args:
        path_or_name: a folder as ``save_pretrained`` writes it, or a model's id on the hub.
        revision: branch, tag or commit on the hub, by default its main branch; for a folder only a note of its origin.
        dtype: type of the weights; ``auto`` is bfloat16 on CUDA and float32 elsewhere.
        device: such as ``cuda:1``; ``auto`` takes CUDA if available.
        batch_size: requests at a time.
        min_pixels: smaller images are enlarged to this number of pixels; by default the processor's setting.
        max_pixels: larger images are reduced to this number of pixels; by default the processor's setting.

    Raises:
        VLMError: the model is not found, or takes no images.
    """

    def __init__(
        self,
        path_or_name: str | Path,
        revision: str = "",
        dtype: Dtype = "auto",
        device: str = "auto",
        batch_size: int = 8,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: must be at least 1")
        self.name, self.revision, self.batch_size = str(path_or_name), revision, batch_size
        cuda = torch.cuda.is_available()
        self.device = torch.device(("cuda" if cuda else "cpu") if device == "auto" else device)
        if self.device.type == "cuda" and not cuda:
            raise VLMError(f"device={device!r}: there is no CUDA device; pass device='cpu'")
        self.dtype = ("bfloat16" if self.device.type == "cuda" else "float32") if dtype == "auto" else dtype
        limits = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        self._limits = {name: value for name, value in limits.items() if value is not None}
        self._folder = Path(path_or_name) if Path(path_or_name).is_dir() else None
        self._refusal = "" if self._folder else _refusal(self.name, revision)
        self._place = self.name
        if self._refusal and (snapshot := _snapshot(self.name, revision)):
            # transformers asks the hub even with local_files_only, but not for a folder.
            self._place = str(snapshot)
        self._source = {"local_files_only": bool(self._folder or self._refusal), "revision": revision or "main"}
        self._config = self._fetched(AutoConfig)
        snapshot = None if self._folder else _snapshot(self.name, revision)
        self._commit = snapshot.name if snapshot else ""
        if self._commit:  # so that all files are of one commit
            self._source["revision"] = self._commit
        kind = self._config.model_type
        if type(self._config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            raise VLMError(f"{self.name} is a {kind} model and takes no images: choose one that does, e.g. a Qwen3-VL")
        if self._limits and not kind.startswith("qwen"):
            raise VLMError(f"{self.name} is a {kind} model: min_pixels and max_pixels are for Qwen's, leave them out")
        if kind in ("qwen3_vl", "qwen3_vl_moe"):
            try:
                validate(self._config)
            except ValueError as error:
                raise VLMError(f"{self.name}: {error}; correct its config.json") from error
        if self._folder and not any(self._folder.glob("*.safetensors")):
            raise VLMError(f"{self.name}: no *.safetensors in this folder; save_pretrained writes them")

    def identity(self) -> Mapping[str, Any]:
        """Backend, model, revision, dtype and given pixel limits; of a folder also digests of its files."""
        return {
            "backend": "transformers",
            "model": self._folder.resolve().name if self._folder else self.name,
            "revision": self._commit or self.revision,
            **self._digests,
            "dtype": self.dtype,
            **self._limits,
        }

    def weights(self) -> str:
        return f"sha256:{digests(self._folder)}" if self._folder else "pretrained"

    def ask(self, requests: Iterable[Request]) -> Iterator[Reply | Failure]:
        """See ``Backend.ask``.

        ``seconds`` of a reply are those of its batch. Requests with images that cannot be decoded, or that the
        processor refuses, come back as failures.
        """
        waiting = iter(requests)
        shown: dict[EncodedImage, Image.Image] = {}
        while batch := list(islice(waiting, self.batch_size)):
            # Requests about one image usually follow each other, and may continue in the next batch.
            before, shown = shown, {}
            alike: dict[tuple[Decoding, bool], list[Request]] = {}
            for request in batch:
                try:
                    for part in (part for message in request.messages for part in message.parts):
                        if isinstance(part, EncodedImage) and part not in shown:
                            shown[part] = before.get(part) or _decoded(part)
                except ValueError as error:
                    yield Failure(request.key, str(error))
                else:
                    alike.setdefault((request.decoding, request.p_yes), []).append(request)
            for (decoding, _), group in alike.items():
                yield from self._answers(group, decoding, shown)

    def _answers(
        self, group: Sequence[Request], decoding: Decoding, shown: Mapping[EncodedImage, Image.Image]
    ) -> Iterator[Reply | Failure]:
        _, processor, ends = self._loaded
        start = time.perf_counter()
        try:
            inputs = self._inputs(group, shown)
        except ValueError as error:
            if len(group) == 1:
                yield Failure(group[0].key, str(error))
            else:  # one by one, to find the request that is refused
                for request in group:
                    yield from self._answers([request], decoding, shown)
            return
        verdicts = _Verdicts(*self._verdict_tokens) if group[0].p_yes else None
        answers = self._generate(inputs, decoding, [request.key for request in group], verdicts)
        seconds = time.perf_counter() - start
        rows = zip(group, inputs["attention_mask"], answers.tolist(), strict=True)
        for index, (request, mask, answer) in enumerate(rows):
            end = next((place for place, token in enumerate(answer) if token in ends), None)
            p_yes = None
            if verdicts is not None:
                place = verdict_token([processor.tokenizer.decode([token]) for token in answer[:end]])
                p_yes = None if place is None else float(verdicts.shares[place][index])
            yield Reply(
                key=request.key,
                text=processor.tokenizer.decode(
                    answer[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False
                ),
                finish_reason="length" if end is None else "stop",
                seconds=seconds,
                tokens=(int(mask.sum()), len(answer) if end is None else end + 1),
                p_yes=p_yes,
            )

    def _inputs(self, group: Sequence[Request], shown: Mapping[EncodedImage, Image.Image]) -> Any:
        processor = self._loaded.processor
        settings: dict[str, Any] = {"padding": True, "padding_side": "left"}
        if self._limits:
            own = processor.image_processor.size
            settings["size"] = {  # numbers of pixels, despite the names
                "shortest_edge": self._limits.get("min_pixels", own["shortest_edge"]),
                "longest_edge": self._limits.get("max_pixels", own["longest_edge"]),
            }
        return processor.apply_chat_template(
            [[_turn(message, shown) for message in request.messages] for request in group],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs=settings,
        ).to(self.device, getattr(torch, self.dtype))

    def _generate(
        self, inputs: Any, decoding: Decoding, keys: Sequence[str], verdicts: _Verdicts | None = None
    ) -> Tensor:
        """(B, up to max_tokens) the tokens of the answers, padded after their ends."""
        count, length = inputs["input_ids"].shape
        draw: list[Any] = [] if verdicts is None else [verdicts]
        if decoding.temperature > 0:
            draw.append(_Draw(decoding, keys, self.device))
        try:
            tokens = self._loaded.model.generate(**inputs, max_new_tokens=decoding.max_tokens, logits_processor=draw)
        except torch.OutOfMemoryError as error:
            raise VLMError(
                f"{self.name}: {count} requests of up to {length} tokens and {decoding.max_tokens} to answer do not "
                f"fit into the GPU's memory: pass a smaller batch_size (now {self.batch_size}) or max_pixels"
            ) from error
        return tokens[:, length:]

    @cached_property
    def _verdict_tokens(self) -> tuple[Tensor, Tensor]:
        """The ids of the tokens that say yes, and of those that say no."""
        words: dict[str, list[int]] = {"yes": [], "no": []}
        for token, index in self._loaded.processor.tokenizer.get_vocab().items():
            if (word := bare(token)) in words:
                words[word].append(index)
        return torch.tensor(words["yes"], device=self.device), torch.tensor(words["no"], device=self.device)

    @cached_property
    def _digests(self) -> dict[str, str]:
        if self._folder is None:  # the commit identifies the files
            return {}
        return {"weights": _digest(self._folder, "*.safetensors"), "settings": _digest(self._folder, *SETTINGS)}

    @cached_property
    def _loaded(self) -> _Loaded:
        processor = self._fetched(AutoProcessor)
        if not hasattr(processor, "image_processor") or not processor.chat_template:
            raise VLMError(f"{self.name} lacks an image processor or a chat template: complete its files")
        # Straight to the GPU: a large model may not fit into the main memory.
        place = {} if self.device.type == "cpu" else {"device_map": self.device}
        try:
            model, report = self._fetched(
                AutoModelForImageTextToText, dtype=getattr(torch, self.dtype), output_loading_info=True, **place
            )
        except torch.OutOfMemoryError as error:
            raise VLMError(f"{self.name} does not fit on {self.device}: take a smaller model or dtype") from error
        if lacking := sorted(report["missing_keys"]):
            # transformers would leave random numbers in their place.
            raise VLMError(f"{self.name}: no weights for {some(lacking)}; download it again")
        own = model.generation_config.eos_token_id
        ends = {processor.tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
        mute = {getattr(self._config, name, None) for name in PLACEHOLDERS} - {None, *ends}
        padding = processor.tokenizer.pad_token_id
        model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
            eos_token_id=sorted(ends),
            pad_token_id=min(ends) if padding is None else padding,
            suppress_tokens=sorted(mute) or None,
        )
        return _Loaded(model.eval(), processor, frozenset(ends))

    def _fetched(self, auto: Any, **settings: Any) -> Any:
        try:
            return auto.from_pretrained(self._place, **self._source, **settings)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # what a failed load raises differs by library and version
            if self._folder:
                raise VLMError(
                    f"{self.name} cannot be loaded ({brief(error)}): give a complete folder, "
                    "as save_pretrained writes it"
                ) from error
            raise VLMError(
                f"{self.name} cannot be loaded ({self._refusal or brief(error)}): it is neither a folder nor on the "
                "hub. Pass a folder as save_pretrained writes it, or the id of a model that you have access to; "
                f"without a network it must have been downloaded before (hf download {self.name})"
            ) from error


def validate(config: Any) -> None:
    """Checks a Qwen3-VL configuration for mistakes that transformers accepts silently.

    Raises:
        ValueError: transformers would leave out or change a part of the model; the message names all mistakes.
    """
    text, vision = config.text_config, config.vision_config
    problems = []
    indexes = list(vision.deepstack_visual_indexes)
    if len(set(indexes)) < len(indexes) or not all(0 <= index < vision.depth for index in indexes):
        problems.append(
            f"deepstack_visual_indexes {indexes} of a vision encoder of depth {vision.depth}: "
            f"features are taken only at distinct layers from 0 to {vision.depth - 1}"
        )
    if len(indexes) > text.num_hidden_layers:
        problems.append(
            f"{len(indexes)} deepstack levels for {text.num_hidden_layers} language layers: "
            "each level needs its own layer"
        )
    half = (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads) // 2
    # The model's default, which is for heads of 128.
    section = list((text.rope_parameters or {}).get("mrope_section", [24, 20, 20]))
    if len(section) != 3 or sum(section) != half:
        problems.append(f"mrope_section {section}: three numbers whose sum is half of head_dim, {half}")
    elif max(3 * section[1] - 2, 3 * section[2] - 1) >= half:
        # Height and width have every third frequency, from 1 and from 2; those beyond the end would be lost.
        problems.append(f"mrope_section {section}: more than a third of {half} frequencies for height or width")
    positions = vision.num_position_embeddings
    if math.isqrt(positions) ** 2 != positions:
        problems.append(f"num_position_embeddings {positions}: the square of the position grid's side")
    if problems:
        raise ValueError("not a valid Qwen3-VL configuration: " + "; ".join(problems))


class _Draw:
    """Turns greedy decoding into sampling: adds Gumbel noise to the scores, from a generator for each answer."""

    def __init__(self, decoding: Decoding, keys: Sequence[str], device: torch.device) -> None:
        self._temperature = TemperatureLogitsWarper(float(decoding.temperature))
        self._top_p = TopPLogitsWarper(float(decoding.top_p))
        self._generators = []
        for key in keys:
            seed = hashlib.sha256(f"{decoding.seed} {key}".encode()).digest()
            self._generators.append(torch.Generator(device).manual_seed(int.from_bytes(seed[:7], "big")))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = self._top_p(input_ids, self._temperature(input_ids, scores))
        pairs = zip(scores, self._generators, strict=True)
        noise = torch.stack([torch.empty_like(row).exponential_(generator=generator) for row, generator in pairs])
        return scores - noise.clamp_min(torch.finfo(noise.dtype).tiny).log()


class _Verdicts:
    """Changes nothing, and keeps the probability of "yes" against "no" at each step, (B,) each."""

    def __init__(self, yes: Tensor, no: Tensor) -> None:
        self.shares: list[Tensor] = []
        self._yes, self._no = yes, no

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        yes, no = (scores.float()[:, ids].logsumexp(-1) for ids in (self._yes, self._no))
        self.shares.append((yes - no).sigmoid())
        return scores


def _refusal(name: str, revision: str) -> str:
    """Why a model is not available from the hub; empty where it is.

    This is asked first, since transformers would try for half a minute without a network.
    """
    try:
        HfApi().model_info(name, revision=revision or None, timeout=HUB_TIMEOUT)
    except Exception as error:  # what it raises differs by library and version
        return brief(error)
    return ""


def _snapshot(name: str, revision: str) -> Path | None:
    """The folder of a downloaded revision of a model, named by its commit; None if there is none."""
    try:
        config = try_to_load_from_cache(name, "config.json", revision=revision or "main")
    except ValueError:  # not a possible name on the hub, e.g. a missing folder
        return None
    return Path(config).parent if isinstance(config, str) else None


def _digest(folder: Path, *patterns: str) -> str:
    """16 hex digits of the names and contents of the files that match the patterns."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in patterns for file in folder.glob(pattern)}):
        digest.update(f"{file.name} {file_digest(file)}\n".encode())
    return digest.hexdigest()[:16]


def _decoded(encoded: EncodedImage) -> Image.Image:
    try:
        with Image.open(BytesIO(encoded.data)) as image:
            # Turned by its orientation tag, as servers do.
            return ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # Pillow's plugins raise almost anything on rubbish
        raise ValueError(f"an image cannot be decoded ({type(error).__name__}: {error})") from error


def _turn(message: Message, shown: Mapping[EncodedImage, Image.Image]) -> dict[str, Any]:
    """A message in the form of chat templates."""
    content = [
        {"type": "image", "image": shown[part]} if isinstance(part, EncodedImage) else {"type": "text", "text": part}
        for part in message.parts
    ]
    return {"role": message.role, "content": content}
