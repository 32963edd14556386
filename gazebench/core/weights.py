"""Weights: found on this machine or downloaded, read from a file, and loaded strictly.

Downloads go where torch.hub, timm and the Hugging Face hub keep theirs (``TORCH_HOME``, ``HF_HOME``), so that no file
is fetched twice. Files of the folder ``GAZEBENCH_WEIGHTS`` go first: a machine without a network needs nothing else.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlparse

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gazebench.core.errors import DataError, brief, some
from gazebench.core.files import file_digest
from gazebench.core.known_weights import known

EXPORT = "model.safetensors"
"""The file of the weights in a repository of a model on the Hugging Face hub."""


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


def present(place: str | Path) -> Path | None:
    """The path of a weights file that is on this machine; None where it would have to be downloaded.

    Args:
        place: a file, a folder with an ``EXPORT``, an http(s) address, ``hf:owner/repository/file`` or
            ``hf:owner/repository@revision/file``; without a file the repository's ``EXPORT``.
    """
    text = str(place)
    on_hub = text.startswith("hf:")
    given = os.environ.get("GAZEBENCH_WEIGHTS")
    if not on_hub and not text.startswith(("http://", "https://")):
        path = Path(text) / EXPORT if Path(text).is_dir() else Path(text)
        return path if path.is_file() else None
    repo, file, revision = hub_address(text) if on_hub else ("", download_path(text).name, None)
    if given and (own := Path(given, repo, file)).is_file():
        return own
    if on_hub:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(repo, file, revision=revision)
        return Path(cached) if isinstance(cached, str) else None
    path = download_path(text)
    return path if path.is_file() else None


def hub_address(text: str) -> tuple[str, str, str | None]:
    """Repository, file and revision of ``hf:owner/repository@revision/file``.

    Raises:
        WeightsError: the text is no such address.
    """
    parts = text.removeprefix("hf:").split("/", 2)
    if len(parts) < 2 or not all(parts):
        raise WeightsError(f"{text}: give hf:owner/repository/file, or hf:owner/repository of a model of this suite")
    repo, _, revision = "/".join(parts[:2]).partition("@")
    return repo, (parts[2:] or [EXPORT])[0], revision or None


def local_file(place: str | Path) -> Path:
    """The path of a weights file, which is downloaded where it is not ``present``.

    Raises:
        WeightsError: it does not exist, or cannot be downloaded.
    """
    text, path = str(place), present(place)
    if path is not None:
        return path
    if text.startswith("hf:"):
        return _from_hub(text)
    if not text.startswith(("http://", "https://")):
        raise WeightsError(f"{text}: no such weights file")
    target = download_path(text)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(text, str(target))
    except OSError as error:
        raise WeightsError(f"{text} cannot be downloaded ({error}); {_elsewhere(target.name)}") from error
    return target


def _elsewhere(name: str) -> str:
    return f"fetch it where there is a network and put it as {name} into the folder GAZEBENCH_WEIGHTS, or give its path"


def _from_hub(text: str) -> Path:
    from huggingface_hub import errors, hf_hub_download

    repo, file, revision = hub_address(text)
    try:
        path = Path(hf_hub_download(repo, file, revision=revision))
        for beside in ("config.yaml", "record.json") if text.count("/") == 1 else ():
            hf_hub_download(repo, beside, revision=revision)
        return path
    except errors.GatedRepoError as error:
        raise WeightsError(
            f"{text}: accept the licence on https://huggingface.co/{repo} and log in with `hf auth login`, since this "
            "repository is open only to those who did"
        ) from error
    except (errors.RepositoryNotFoundError, errors.RemoteEntryNotFoundError, errors.RevisionNotFoundError) as error:
        raise WeightsError(f"{text}: there is no such repository, revision or file on huggingface.co") from error
    except (OSError, ValueError) as error:  # no network, HF_HUB_OFFLINE, a malformed name
        where = _elsewhere(f"{repo}/{file}")
        raise WeightsError(f"{text} cannot be downloaded ({brief(error)}); {where}") from error


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from our ``weights.pt``, a Lightning checkpoint, safetensors, or an official ``.pt``.

    TorchScript, which is a program, is read where the digest of the file is known: OpenAI's CLIPs are such files.

    Raises:
        WeightsError: the file is none of these, or holds no state dict.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if _is_script(path):
            if not known(file_digest(path)):
                raise ValueError(
                    "TorchScript, which is a program, of unknown digest: `gazebench weights add` vouches for it"
                )
            return dict(torch.jit.load(path, map_location="cpu").state_dict())
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"{path}: not a file of weights ({type(error).__name__}: {error})") from error
    inner = ("state_dict", "model")  # Lightning, and checkpoints of training scripts
    state = next(
        (loaded[key] for key in inner if isinstance(loaded, dict) and isinstance(loaded.get(key), dict)), loaded
    )
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(f"{path}: holds no state dict of tensors")
    return state


def _is_script(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
