"""Configuration: constructor signatures are the schema, recipes give defaults, the command line overrides them."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from argparse import ArgumentError
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from lightning import Trainer

from gazebench.core.errors import DataError
from gazebench.core.plugins import PluginError
from gazebench.data.combined import CombinedDataset
from gazebench.data.datamodule import GazeDataModule
from gazebench.data.dataset import GazeDataset
from gazebench.engine.method import Method, Recipe, Setting
from gazebench.engine.registry import Plugin, find, load_dataset, load_method, usable
from gazebench.engine.tuned import recipe_of

_TRAINER_FIXED = {
    "logger", "callbacks", "default_root_dir", "enable_checkpointing", "use_distributed_sampler", "plugins",
    "profiler", "inference_mode", "barebones", "model_registry", "overfit_batches", "fast_dev_run",
    "reload_dataloaders_every_n_epochs", "num_sanity_val_steps", "limit_predict_batches", "min_epochs", "min_steps",
    "check_val_every_n_epoch", "val_check_interval", "max_time", "max_steps", "sync_batchnorm", "detect_anomaly",
    "limit_train_batches", "limit_val_batches", "limit_test_batches", "enable_autolog_hparams", "benchmark",
    "enable_model_summary", "log_every_n_steps",
}  # fmt: skip
"""Arguments of Lightning's Trainer that the harness sets itself, or that would change what a result means."""

_LOADER_FIXED = {"dataset", "preprocess", "seed", "sees_images", "tasks"}

_NO_EFFECT = {
    "dataset": ["root"], "model": ["feature_cache", "feature_cache_gib"], "loader": ["workers"],
    "trainer": ["enable_progress_bar"],
}  # fmt: skip
"""Settings that are no part of a run's identity; for ``dataset.root`` the data's fingerprint is."""

_ADDED = {"dataset": {"head_boxes": None, "missing_boxes": "error", "depth": None, "decoder": None}}
"""Settings that came later, with their defaults: left out where they have these, so that runs keep their identity."""


@dataclass(frozen=True)
class Config:
    """A resolved configuration: everything needed to repeat a run.

    Attributes:
        values: plain data, as in ``config.yaml``.
        method: the method named by ``values["method"]``.
        dataset: the data set named by ``values["data"]``.
    """

    values: dict[str, Any]
    method: Plugin
    dataset: Plugin

    def new_method(self) -> Method:
        """Builds the method with its settings; random weights come from torch's global seed."""
        method: Method = self.method.cls(**self.values["model"])
        return method

    def new_dataset(self) -> GazeDataset:
        dataset: GazeDataset = self.dataset.cls(**self.values["dataset"])
        return dataset

    def members(self) -> list[Config]:
        """The same settings for every data set of a combination, without weights to start from."""
        whole = self.new_dataset()
        if not isinstance(whole, CombinedDataset):
            return [self]
        return [
            Config({**self.values, "data": name, "dataset": whole.options(name), "init": None},
                   self.method, find("datasets", name))
            for name in (self.values["data"]).split("+")
        ]  # fmt: skip

    def yaml(self) -> str:
        """The text of ``config.yaml``, which repeats the run: ``gazebench bench --config FILE``."""
        return yaml.safe_dump(self.values, sort_keys=False)

    def public(self) -> dict[str, Any]:
        """The values for records: without the folders of this machine's paths."""
        values = json.loads(json.dumps(self.values))
        for group in ("dataset", "model"):
            values[group] = {key: _public_path(value) for key, value in values[group].items()}
        values["init"] = _public_path(values["init"])
        return values | {"method": self.method.name, "data": self.dataset.name}

    def recipe(self) -> Recipe:
        return recipe_of(self.method.name, self.method.cls, self.dataset.name, self.values["model"])


def settings_digest(values: Mapping[str, Any], *further: str) -> str:
    """Ten hex digits of the settings of a configuration or record, and of what else a result depends on."""
    text = json.dumps([essence(values), *further], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def essence(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a configuration or record without those that change no result."""
    kept: dict[str, Any] = json.loads(json.dumps(values))
    kept.pop("provenance", None)
    for group, added in _ADDED.items():
        for name, default in added.items():
            if name in kept.get(group, {}) and kept[group][name] == default:
                del kept[group][name]
    for group, names in _NO_EFFECT.items():
        for name in names:
            kept.get(group, {}).pop(name, None)
    return kept


def resolve(
    arguments: Sequence[str], *, prog: str = "gazebench bench", base: Mapping[str, Any] | None = None
) -> Config:
    """Reads ``METHOD DATASET [--config FILE] [--model.x ...]`` into a configuration.

    Later wins: signature defaults, the method's recipe for the data set, ``base`` and the config file, options.

    Raises:
        DataError: an option is unknown or has a bad value. PluginError: a name is unknown.
    """
    names, options, from_file = _split(arguments)
    given: dict[str, Any] = {**(base or {}), **from_file}
    given |= dict(zip(("method", "data"), names, strict=False))
    for key in ("method", "data"):
        for option in options:
            if option.startswith(f"--{key}="):
                given[key] = option.split("=", 1)[1]
        if key not in given:
            raise DataError(
                f"{prog}: the {'method' if key == 'method' else 'dataset'} is missing: {prog} METHOD DATASET"
            )
    method, dataset = find("methods", given["method"]), find("datasets", given["data"])
    if wrong := misfit(method.cls, dataset.cls):
        raise DataError(wrong)
    model = {**given.get("model", {}), **_model_options(options)}
    recipe = recipe_of(method.name, method.cls, dataset.name, model)
    parser = _parser(prog, method.cls, dataset.cls)
    with clear_errors(prog, parser):
        parser.set_defaults(_defaults(recipe) | _flat(given))
        config = parser.parse_args(options)
    values = yaml.safe_load(parser.dump(config, skip_unset=False, skip_validation=True))
    values = {"model": {}, "dataset": {}} | values
    for name in ("root", "subsets", "head_boxes", "depth"):  # absolute, so that config.yaml works in any folder
        if values["dataset"].get(name) and Path(values["dataset"][name]).exists():  # else the name of a shipped split
            values["dataset"][name] = str(Path(values["dataset"][name]).resolve())
    return Config(values, method, dataset)


def misfit(method: type[Method], dataset: type[GazeDataset]) -> str:
    """Why a method has no result on a data set, whatever the settings, and what to take; empty where it has one."""
    if not method.reads_annotations or dataset.protocol.several_annotators:
        return ""
    known = ((entry.name, cls) for entry, cls in usable("datasets") if not isinstance(cls, PluginError))
    return (
        f"{method.card.title} compares one annotator with the others, and in {dataset.card.title} one marked each "
        "person's target; take a data set whose test people several marked: "
        + ", ".join(name for name, cls in known if cls.protocol.several_annotators)
    )


def dataset_with(name: str, options: Sequence[str]) -> GazeDataset:
    """A data set from options such as ``--dataset.root=DIR``, without a method.

    Raises:
        DataError: an option is unknown or has a bad value.
    """
    dataset: GazeDataset = _built(load_dataset(name), "dataset", options, {})
    return dataset


def method_with(name: str, options: Sequence[str], given: Mapping[str, Any]) -> Method:
    """A method from constructor arguments and options such as ``--model.lr=1e-3``, without a data set.

    Raises:
        DataError: an option is unknown or has a bad value.
    """
    method: Method = _built(load_method(name), "model", options, given)
    return method


def _built(cls: type, group: str, options: Sequence[str], given: Mapping[str, Any]) -> Any:
    parser = ArgumentParser(prog="gazebench", exit_on_error=False)
    parser.add_class_arguments(cls, group, fail_untyped=False)
    with clear_errors("gazebench", parser):
        parser.set_defaults({f"{group}.{key}": value for key, value in given.items()})
        values = yaml.safe_load(parser.dump(parser.parse_args(list(options)), skip_unset=False))
        return cls(**values.get(group) or {})


@contextmanager
def clear_errors(prog: str, parser: ArgumentParser) -> Iterator[None]:
    """Turns errors of the parser into a ``DataError``, with the nearest name of an unknown setting."""
    try:
        yield
    except (ArgumentError, TypeError, ValueError, KeyError) as error:
        known = [name for name in parser._option_string_actions if "." in name]
        unknown = [name for name in re.findall(r"--[\w.]+", str(error)) if name not in known]
        near = [close for name in unknown for close in difflib.get_close_matches(name, known, n=1)]
        hint = f"did you mean {near[0]}? " if near else ""
        raise DataError(
            f"{prog}: {str(error).strip()}; {hint}`gazebench settings METHOD DATASET` lists the settings"
        ) from error


def settings_help(method: str, dataset: str, prog: str = "gazebench bench") -> str:
    """The help text of all settings of a method on a data set, with the recipe's values as defaults."""
    found, data = find("methods", method), find("datasets", dataset)
    parser = _parser(prog, found.cls, data.cls)
    parser.set_defaults(_defaults(recipe_of(found.name, found.cls, data.name, {})))
    return parser.format_help()


def provenance(config: Config) -> dict[str, dict[str, Any]]:
    """The value of every setting of the recipe in this run, its origin (``user`` if changed), and the reason."""
    sheet = {}
    for name, setting in config.recipe().items():
        value: Any = config.values
        for part in name.split("."):
            value = value[part]
        changed = value != setting.value
        sheet[name] = {
            "value": value,
            "origin": "user" if changed else setting.origin,
            "why": f"the recipe says {setting.value!r} ({setting.origin})" if changed else setting.why,
        }
    return sheet


def _parser(prog: str, method: type[Method], dataset: type[GazeDataset]) -> ArgumentParser:
    parser = ArgumentParser(prog=prog, exit_on_error=False)
    parser.add_argument("--method", type=str, help="a name of `gazebench list` or a Python file")
    parser.add_argument("--data", type=str, help="a name of `gazebench list` or a Python file")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, order and augmentation")
    parser.add_argument("--init", type=str | None, default=None, help="weights of an earlier stage to start from")
    parser.add_class_arguments(method, "model", fail_untyped=False)
    parser.add_class_arguments(dataset, "dataset", fail_untyped=False)
    parser.add_class_arguments(GazeDataModule, "loader", skip=_LOADER_FIXED, fail_untyped=False)
    parser.add_class_arguments(Trainer, "trainer", skip=_TRAINER_FIXED, fail_untyped=False)
    # Deterministic: with several threads the order of a scattered sum in the backward pass changes from run to run.
    parser.set_defaults({"trainer.max_epochs": 1, "trainer.precision": "32-true", "trainer.deterministic": "warn"})
    return parser


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str], dict[str, Any]]:
    """Names, options in the form ``--a.b=value``, and the content of a ``--config`` file."""
    names: list[str] = []
    options: list[str] = []
    from_file: dict[str, Any] = {}
    queue = list(arguments)
    while queue:
        word = queue.pop(0)
        if not word.startswith("--"):
            names.append(word)
            continue
        if "=" not in word and queue and not queue[0].startswith("--"):
            word = f"{word}={queue.pop(0)}"
        if word.startswith("--config="):
            from_file |= read_config(Path(word.split("=", 1)[1]))
        else:
            options.append(word)
    if len(names) > 2:
        raise DataError(f"unexpected arguments: {' '.join(names[2:])}; options begin with --")
    return names, options, from_file


def read_config(path: Path) -> dict[str, Any]:
    """The settings in a ``config.yaml``.

    Raises:
        DataError: the file does not exist or holds no mapping.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such config file")
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not YAML: {error}") from error
    if not isinstance(loaded, dict):
        raise DataError(f"{path}: a config file is a mapping of settings")
    return loaded


def _model_options(options: Sequence[str]) -> dict[str, Any]:
    return {
        name.removeprefix("--model."): yaml.safe_load(value)
        for name, _, value in (option.partition("=") for option in options)
        if name.startswith("--model.")
    }


def _defaults(recipe: Recipe) -> dict[str, Any]:
    unknown = [name for name, setting in recipe.items() if not isinstance(setting, Setting)]
    if unknown:
        raise ValueError(f"recipe values must be gazebench.engine.method.Setting: {unknown}")
    return {name: setting.value for name, setting in recipe.items()}


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names for the settings of all groups; a setting that is itself a mapping stays one."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        grouped = key in ("model", "dataset", "loader", "trainer") and isinstance(value, Mapping)
        flat |= {f"{key}.{name}": item for name, item in value.items()} if grouped else {key: value}
    return flat


def _public_path(value: Any) -> Any:
    folders = isinstance(value, str) and re.search(r"[/\\]", value) and not value.startswith("http")
    return PureWindowsPath(value).name if folders else value  # which takes either separator
