"""Runs on the Hugging Face hub: a folder with weights as safetensors, settings, record, and a card made from it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, HfApi, ModelCardData, errors
from safetensors.torch import save_file

from gazebench.core.errors import DataError, brief
from gazebench.core.files import file_digest
from gazebench.core.known_weights import KnownWeights
from gazebench.core.known_weights import add as add_known
from gazebench.core.plugins import PluginError
from gazebench.core.weights import EXPORT, read_weights
from gazebench.engine import standing
from gazebench.engine.model import GazeModel, load
from gazebench.engine.registry import load_dataset
from gazebench.report.record_page import facts, scores_table
from gazebench.report.run_data import Record

KNOWN = ("official", "listed", "synthetic")
"""Classes of results whose weights their own maker's table may vouch for (``standing.HEADINGS``)."""


def from_pretrained(place: str | Path, *settings: str, **options: Any) -> GazeModel:
    """``gazebench.load`` of an export, ready to predict.

    Args:
        place: ``owner/repository`` on the hub, with ``@revision`` where another than the newest is meant; or a folder
            that ``export`` wrote.
        settings: ``--model.name=value``, e.g. where a backbone's weights lie on this machine.
        options: those of ``gazebench.load``.

    Raises:
        DataError: nothing is there, or it does not fit.
    """
    text = str(place)
    on_hub = text.count("/") == 1 and not text.startswith(("hf:", ".", "/", "~")) and not Path(text).exists()
    return load(f"hf:{text}" if on_hub else text, *settings, **options)


def export(run: Path, folder: Path, repo: str = "") -> Path:
    """Writes the weights of a finished run with settings, record and card.

    The user's table of known weights is told of the file, unless the run's own result is not to be trusted.

    Args:
        run: the run's folder.
        folder: is made; files of these names are replaced.
        repo: ``owner/repository`` that it is for, if any.

    Raises:
        DataError: the folder has no record, or the run trained no weights.
    """
    try:
        record = json.loads((run / "record.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{run}: no record.json of a finished run in this folder") from error
    if not (run / "weights.pt").is_file():
        raise DataError(f"{run}: this run has no weights.pt; `gazebench bench` of a method that learns writes one")
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous().clone() for name, value in read_weights(run / "weights.pt").items()}
    about = {
        "format": "pt",
        "gazebench_run": str(record["run"]),
        "sha256_of_weights_pt": file_digest(run / "weights.pt"),
    }
    save_file(weights, folder / EXPORT, about)
    settings = {key: value for key, value in record["config"].items() if key != "provenance"}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    (folder / "record.json").write_bytes((run / "record.json").read_bytes())
    (folder / "README.md").write_text(model_card(record, repo), encoding="utf-8")
    if record["status"]["class"] in KNOWN:
        name, made_by = f"{repo or folder.name}/{EXPORT}", f"run {record['run']}"
        add_known(KnownWeights(name, file_digest(folder / EXPORT), "own", made_by))
    return folder


def push_to_hub(run: Path, repo: str, *, private: bool = False, api: Any = None) -> str:
    """Uploads the ``export`` of a run and returns its address.

    Args:
        run: the run's folder.
        repo: ``owner/repository``, made where it does not exist.
        private: whether a new repository is closed to others.
        api: stands in for ``huggingface_hub.HfApi``.

    Raises:
        DataError: see ``export``; or the upload failed.
    """
    api = api or HfApi()
    with tempfile.TemporaryDirectory() as temporary:
        folder = export(run, Path(temporary) / "export", repo)
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message=f"gazebench run {run.name}")
        except (errors.HfHubHTTPError, errors.HFValidationError, errors.LocalTokenNotFoundError, OSError) as error:
            raise DataError(
                f"{repo}: the upload failed ({brief(error)}); `hf auth login` with a token that may write, or "
                f"`gazebench weights export {run} FOLDER` and upload that folder from elsewhere"
            ) from error
    return f"https://huggingface.co/{repo}"


def model_card(record: Record, repo: str = "") -> str:
    """The README of an export: what was measured on what, by the record alone."""
    method, data, name = record["method"], record["data"], record["dataset"]
    try:
        protocol, title = load_dataset(name).protocol, load_dataset(name).card.title
    except PluginError:  # a data set of a plug-in that is not installed here
        protocol, title = None, name
    results = [
        EvalResult(
            task_type="gaze-following", dataset_type=name, dataset_name=title, dataset_split=data["split"],
            metric_type=metric, metric_value=round(scores["all"]["value"], 4),
        )
        for metric, scores in record["metrics"].items() if scores.get("all", {}).get("value") is not None
    ]  # fmt: skip
    head = ModelCardData(
        library_name="gazebench", tags=["gaze-following", "gaze-target-estimation"], model_name=method["title"],
        eval_results=results, base_model=None,
    )  # fmt: skip
    place = repo or "FOLDER"
    terms = [f"- {what}: {method[key]}" for what, key in (("Paper", "paper"), ("Licence of the method", "licence"))
             if method.get(key)]  # fmt: skip
    return "\n".join([
        "---", head.to_yaml(), "---", "",
        f"# {method['title']} on {title}", "",
        f"Trained and tested with [gazebench](https://pypi.org/project/gazebench/): run `{record['run']}`, protocol "
        f"`{record['protocol']['id']}`, class **{record['status']['class']}**: "
        f"{standing.HEADINGS[record['status']['class']]}.",
        *(f"- {reason}" for reason in record["status"]["reasons"]), "",
        "```python", "import gazebench", "",
        f'model = gazebench.load("{f"hf:{repo}" if repo else place}")', 'model.predict("photo.jpg")', "```", "",
        "```bash",
        f"gazebench predict photo.jpg --box 120,40,180,110 --weights {f'hf:{repo}' if repo else place}", "```", "",
        "The file holds what was trained; the backbone is fetched by its name.", "",
        "## Scores", "", scores_table(record, protocol).markdown(), "",
        "## What it depends on", "", *terms, *(f"- {name}: {value}" for name, value in facts(record)), "",
    ])  # fmt: skip
