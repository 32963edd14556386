"""Weights: read from a file or an address, and loaded strictly."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from gazebench.core.errors import DataError, some


class WeightsError(DataError):
    """Weights that are missing, unreadable, or made for another model; the message names the remedy."""


def load_strictly(
    own: nn.Module | Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    *,
    what: str,
    may_lack: Iterable[str] = (),
    remedy: str = "",
) -> None:
    """Copies a state dict into a module, or into some tensors of it; copies nothing where anything does not fit.

    Args:
        own: the module, or tensors by the names they have in ``given``; filled in place.
        given: the weights, of any dtype and on any device.
        what: the name of the receiver in the error message.
        may_lack: names of ``own`` that ``given`` may leave out; their values stay as they are.
        remedy: the end of the error message: what to do about weights that do not fit.

    Raises:
        WeightsError: names are missing or unknown, or shapes differ; up to four of each kind are listed.
    """
    tensors = own.state_dict() if isinstance(own, nn.Module) else own
    shapes = [
        f"{key} {tuple(given[key].shape)}, here {tuple(tensors[key].shape)}"
        for key in sorted(tensors.keys() & given.keys())
        if tensors[key].shape != given[key].shape
    ]
    problems = {
        "missing": sorted(tensors.keys() - given.keys() - set(may_lack)),
        "unknown": sorted(given.keys() - tensors.keys()),
        "of another shape": shapes,
    }
    found = "; ".join(f"{kind}: {some(names)}" for kind, names in problems.items() if names)
    if found:
        raise WeightsError(f"the weights do not fit {what}: {found}{f'; {remedy}' if remedy else ''}")
    with torch.no_grad():
        for name, value in given.items():
            tensors[name].copy_(value)


def download_path(address: str) -> Path:
    """Where ``local_file`` and torch.hub put the file of an address."""
    return Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(urlparse(address).path)  # noqa: PTH119


def local_file(place: str | Path) -> Path:
    """The path of a weights file; an http(s) address is downloaded once into torch.hub's checkpoint folder.

    Raises:
        WeightsError: the file does not exist, or the address cannot be reached.
    """
    text = str(place)
    if not text.startswith(("http://", "https://")):
        path = Path(text)
        if not path.is_file():
            raise WeightsError(f"{path}: no such weights file")
        return path
    target = download_path(text)
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(text, str(target))
        except OSError as error:
            raise WeightsError(
                f"{text} cannot be downloaded ({error}); fetch it where there is a network and give the file's path"
            ) from error
    return target


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from our ``weights.pt``, a Lightning checkpoint, or an official ``.pt``.

    Raises:
        WeightsError: the file is no torch file, or holds no state dict.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"{path}: not a file of weights ({type(error).__name__}: {error})") from error
    state = loaded.get("state_dict", loaded.get("model", loaded)) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(f"{path}: holds no state dict of tensors")
    return state
