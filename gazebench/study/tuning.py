"""Settings chosen on validation: every row gets the same number of trials, and none of them reads the test split.

A trial trains a row on the training sources with drawn values of its settings and scores the validation sources.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import pandas as pd
from lightning import seed_everything
from pydantic import AfterValidator, Field, NonNegativeInt, StringConstraints, model_validator
from scipy.stats import qmc

from gazebench.core.errors import DataError
from gazebench.core.files import write_atomically
from gazebench.core.plugins import PluginError
from gazebench.engine.config import Config, settings_digest
from gazebench.engine.config import resolve as resolved
from gazebench.engine.record import code_identity
from gazebench.engine.registry import load_dataset
from gazebench.engine.run import Places, Run, data_module, initial_weights
from gazebench.engine.train import quiet, train
from gazebench.engine.tuned import TUNED, Tuned
from gazebench.metrics.intervals import format_value
from gazebench.metrics.protocol import ProtocolMetric
from gazebench.report.table import Column, Table
from gazebench.report.yaml_models import Model, Text, read
from gazebench.study.plan import Key, Options, PlannedRow, distinct_values, shown
from gazebench.study.processes import Task, devices, execute

SCHEMA_VERSION = 1
VALIDATE = "--loader.selection=val"
"""Trains on the training sources alone; a recipe's ``last`` would train on those of validation too."""


class Range(Model):
    """Values between two ends, drawn evenly by their logarithm and rounded to two digits."""

    low: Annotated[float, Field(gt=0)]
    high: float

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if self.high <= self.low:
            raise ValueError("`high` must be above `low`")
        return self

    def at(self, share: float) -> float:
        """The value at a share in [0, 1) of the way."""
        return float(f"{self.low * (self.high / self.low) ** share:.2g}")


Choice = Annotated[tuple[int | float | str, ...], Field(min_length=2), AfterValidator(distinct_values)]
SettingName = Annotated[str, StringConstraints(pattern=r"^(model|loader)\.[a-z0-9_]+$")]


class TunedRow(PlannedRow):
    """A row and the settings that are chosen for it: a range, or a list of values."""

    settings: Annotated[dict[SettingName, Range | Choice], Field(min_length=1, max_length=3)]


class TuningFile(Model):
    """What the YAML file of a tuning says; every row gets ``trials`` trials."""

    title: Text
    text: str = ""
    dataset: Text
    seed: NonNegativeInt = 0
    trials: Annotated[int, Field(ge=2)]
    options: Options = ()
    rows: Annotated[dict[Key, TunedRow], Field(min_length=1)]


@dataclass(frozen=True)
class Trial:
    """One trial of a row: the drawn values of its settings, and its whole configuration."""

    row: str
    number: int
    values: Mapping[str, int | float | str]
    config: Config

    @property
    def name(self) -> str:
        return f"{self.row}/{self.number}"

    @cached_property
    def id(self) -> str:
        """Of the settings, and of the versions of method and data set."""
        versions = [plugin.cls.version for plugin in (self.config.method, self.config.dataset)]
        return settings_digest(self.config.public(), json.dumps(versions))


@dataclass(frozen=True)
class Tuning:
    """A plan, its folder of results, and where its trials go."""

    file: Path
    plan: TuningFile
    out: Path
    places: Places

    @classmethod
    def open(cls, file: Path, places: Places, out: Path | None = None) -> Tuning:
        """Reads a plan.

        Raises:
            DataError: a mistake in the plan; names the row.
        """
        found = cls(file, read(file, TuningFile), out or file.with_suffix(""), places)
        _ = found.trials
        return found

    @cached_property
    def headline(self) -> ProtocolMetric:
        protocol = load_dataset(self.plan.dataset).protocol
        return protocol.metric(protocol.headline)

    @cached_property
    def trials(self) -> list[Trial]:
        """All trials, the first of every row first."""
        first = {key: self._config(key, row) for key, row in self.plan.rows.items()}
        found = []
        for number in range(self.plan.trials):
            for key, row in self.plan.rows.items():
                values, drawn = dict(first[key].values), self.drawn(row)[number]
                for name, value in drawn.items():
                    group, _, setting = name.partition(".")
                    values[group] = values[group] | {setting: value}
                found.append(Trial(key, number, drawn, replace(first[key], values=values)))
        return found

    def _config(self, key: str, row: TunedRow) -> Config:
        """The configuration of a row's first trial; the others differ in the drawn values alone."""
        given = [f"--{name}={value}" for name, value in self.drawn(row)[0].items()]
        arguments = [row.method, self.plan.dataset, *row.options, *self.plan.options, VALIDATE, *given]
        where = f"{self.file}: row {key!r}"
        try:
            return resolved([*arguments, f"--seed={self.plan.seed}"], prog=where)
        except PluginError as error:
            raise DataError(f"{where}: {error}") from error

    def drawn(self, row: TunedRow) -> list[dict[str, int | float | str]]:
        """The values of every trial: a scrambled Sobol sequence, the same for rows with equally many settings."""
        count = len(row.settings)
        draws = qmc.Sobol(count, scramble=True, rng=0).random_base2(int(np.ceil(np.log2(self.plan.trials))))
        return [
            {
                name: space.at(share) if isinstance(space, Range) else space[int(share * len(space))]
                for (name, space), share in zip(row.settings.items(), draw, strict=True)
            }
            for draw in draws[: self.plan.trials]
        ]

    # What is stored --------------------------------------------------------------------------------------------------

    def results(self) -> dict[str, dict[str, Any]]:
        """The stored trials that still are of the plan, by name.

        Raises:
            DataError: the file is none of this version.
        """
        path = self.out / "results.json"
        if not path.is_file():
            return {}
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["schema"] != SCHEMA_VERSION:
                raise ValueError(f"schema {stored['schema']}, expected {SCHEMA_VERSION}")
            known = {trial.name: trial.id for trial in self.trials}
            by_name = {f"{entry['row']}/{entry['trial']}": entry for entry in stored["trials"]}
            return {name: entry for name, entry in by_name.items() if known.get(name) == entry["id"]}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not the results of a tuning ({error}); move it away to begin anew") from error

    def best(self) -> dict[str, dict[str, Any]]:
        """Of every row whose trials are all in, the best one, the first of equally good ones."""
        results, found = self.results(), {}
        for row in self.plan.rows:
            of_row = [results.get(f"{row}/{number}") for number in range(self.plan.trials)]
            whole = [entry for entry in of_row if entry is not None]
            if len(whole) == self.plan.trials:
                sign = -1 if self.headline.higher_is_better else 1
                found[row] = min(whole, key=lambda entry: sign * entry["score"])
        return found

    # Running ---------------------------------------------------------------------------------------------------------

    def run(self, *, rows: Sequence[str] = (), jobs: int | None = None, dry_run: bool = False) -> int:
        """Makes the trials that are missing, stores each at once, and writes the page.

        Args:
            rows: only of these rows; of all where none is named.
            jobs: trials at a time; one a GPU where not given.
            dry_run: only lists them.

        Returns:
            1 when a trial failed, else 0.

        Raises:
            DataError: there is no such row.
        """
        if unknown := sorted(set(rows) - self.plan.rows.keys()):
            raise DataError(f"{self.file}: has no row {', '.join(unknown)}; it has {', '.join(self.plan.rows)}")
        done = self.results()
        todo = [trial for trial in self.trials if trial.name not in done and trial.row in (rows or self.plan.rows)]
        print(f"{self.plan.title}: {len(self.trials)} trials, {len(done)} recorded, {len(todo)} to do")
        if dry_run:
            for trial in todo:
                print(f"  {trial.name}: {_said(trial.values)}")
            return 0
        tasks = {self._task(trial): trial for trial in todo}
        failed = execute(
            list(tasks),
            jobs=jobs or max(1, len(devices())),
            finished=lambda task, seconds: self._keep(tasks[task], seconds),
        )
        self.render()
        return 1 if failed else 0

    def folder(self, trial: Trial) -> Path:
        return self.places.runs / "tuning" / self.out.name / trial.row / f"{trial.number}-{trial.id}"

    def _task(self, trial: Trial) -> Task:
        return Task(
            name=trial.name,
            arguments=("tune", str(self.file), f"--trial={trial.name}", f"--runs={self.places.runs}",
                       f"--boards={self.places.boards}", f"--out={self.out}"),
            log=self.places.runs / "study-logs" / self.out.name / f"{trial.row}-{trial.number}.log",
            result=self.folder(trial) / "trial.json",
        )  # fmt: skip

    def try_one(self, name: str) -> None:
        """Carries out one trial, in this process; leaves ``trial.json`` in its folder.

        Raises:
            DataError: there is no such trial.
        """
        trial = next((trial for trial in self.trials if trial.name == name), None)
        if trial is None:
            raise DataError(f"{self.file}: has no trial {name}; they are ROW/NUMBER, below {self.plan.trials}")
        folder = self.folder(trial)
        shutil.rmtree(folder, ignore_errors=True)  # an interrupted one begins anew: its log would lack epochs
        folder.mkdir(parents=True)
        epochs = validated(trial.config, folder, self.places, self.headline.name)
        keeps_last = self._keeps_last(trial)
        best = max if self.headline.higher_is_better else min
        code = code_identity()
        result = {
            "row": trial.row, "trial": trial.number, "id": trial.id, "values": dict(trial.values),
            "score": epochs[-1] if keeps_last else best(epochs), "epochs": epochs,
            "commit": code["commit"], "dirty": bool(code["dirty"]),
        }  # fmt: skip
        write_atomically(folder / "trial.json", json.dumps(result, allow_nan=False))

    def _keeps_last(self, trial: Trial) -> bool:
        """Whether the row's recipe keeps the last epoch; then that one is scored, else the best."""
        setting = trial.config.recipe().get("loader.selection")
        return setting is not None and setting.value == "last"

    def _keep(self, trial: Trial, seconds: float) -> str:
        result = json.loads((self.folder(trial) / "trial.json").read_text(encoding="utf-8"))
        entries = self.results() | {trial.name: result | {"seconds": round(seconds, 1)}}
        stored = {"schema": SCHEMA_VERSION, "trials": [entries[name] for name in sorted(entries)]}
        self.out.mkdir(parents=True, exist_ok=True)
        write_atomically(
            self.out / "results.json", json.dumps(stored, indent=1, sort_keys=True, allow_nan=False) + "\n"
        )
        write_atomically(self.out / "README.md", self.page())
        return f"{self.headline.name} {result['score']:.{self.headline.digits}f} with {_said(trial.values)}"

    # What comes of it ------------------------------------------------------------------------------------------------

    def render(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        write_atomically(self.out / "README.md", self.page())
        print(f"{len(self.results())} of {len(self.trials)} trials are in {self.out / 'README.md'}")

    def set_recipes(self, path: Path = TUNED) -> int:
        """Writes the chosen values where recipes read them (``engine.tuned``); returns how many rows have some.

        Rows of other plans stay. A value holds for configurations that agree with the row in the settings of the
        method that its weights depend on (``Method.stage``) and in the row's own options.
        """
        here = shown(self.file).removesuffix(self.file.suffix)
        others = [entry for entry in Tuned.read(path) if entry.study != here]
        chosen = []
        for row, best in self.best().items():
            config = next(trial.config for trial in self.trials if trial.row == row)
            options = [option.partition("=")[0].removeprefix("--model.") for option in self.plan.rows[row].options]
            names = {*config.method.cls.stage, *options} & config.values["model"].keys()
            tuned = {name.removeprefix("model.") for name in best["values"]}
            when = {name: config.values["model"][name] for name in sorted(names - tuned)}
            chosen.append(Tuned(config.method.name, self.plan.dataset, when, best["values"], self.plan.trials, here))
        Tuned.write(path, [*others, *chosen])
        return len(chosen)

    def page(self) -> str:
        """The README of the results: a function of plan and stored trials."""
        results, best, digits = self.results(), self.best(), self.headline.digits
        rows: list[list[Any]] = []
        for key, row in self.plan.rows.items():
            of_row = [entry for entry in results.values() if entry["row"] == key]
            scores = sorted(entry["score"] for entry in of_row)
            span = f"{scores[0]:.{digits}f} to {scores[-1]:.{digits}f}" if scores else "-"
            chosen = best.get(key)
            rows.append([
                row.title, "; ".join(f"`{name}` {_space(space)}" for name, space in row.settings.items()),
                _said(chosen["values"]) if chosen else "-", format_value(chosen and chosen["score"], digits), span,
                f"{len(of_row)} of {self.plan.trials}", ", ".join(self._at_ends(key)) or "-",
            ])  # fmt: skip
        titles = (
            "row",
            "tried",
            "chosen",
            f"{self.headline.name} on validation",
            "of all trials",
            "trials",
            "at an end",
        )
        every = [
            [entry["row"], str(entry["trial"]), _said(entry["values"]), f"{entry['score']:.{digits}f}"]
            for entry in sorted(results.values(), key=lambda entry: (entry["row"], entry["trial"]))
        ]
        parts = [
            f"# {self.plan.title}", f"<!-- generated by `gazebench tune {shown(self.file)}`; do not edit -->",
            self.plan.text.strip(),
            f"{self.plan.trials} trials for every row, seed {self.plan.seed}: trained on the training sources, scored "
            f"by `{self.headline.name}` on those of validation. No trial reads the test split. Where a row's recipe "
            "keeps the last epoch, that one is scored, else the best. *At an end*: no value beyond the chosen one was "
            "tried.",
            Table([Column(title) for title in titles], rows).markdown(),
        ]  # fmt: skip
        if every:
            columns = [Column(title) for title in ("row", "trial", "values", self.headline.name)]
            parts += ["## All trials", Table(columns, every).markdown()]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _at_ends(self, key: str) -> list[str]:
        """The settings of a row whose chosen value is the smallest or the largest that was tried."""
        best, row = self.best().get(key), self.plan.rows[key]
        if best is None:
            return []
        found = []
        for name in (name for name, space in row.settings.items() if isinstance(space, Range)):
            tried = [float(values[name]) for values in self.drawn(row)]
            found += [name] if best["values"][name] in (min(tried), max(tried)) else []
        return found


def validated(config: Config, folder: Path, places: Places, metric: str) -> list[float]:
    """Trains by a configuration and returns a metric on the validation split after every epoch.

    Unlike ``engine.run.bench`` it neither asks for the identity of the test split nor predicts for it.

    Raises:
        DataError: nothing was trained or validated.
    """
    quiet()
    dataset = config.new_dataset()
    seed_everything(config.values["seed"], workers=True, verbose=False)
    method = config.new_method()
    module = data_module(config, dataset, method)
    if source := initial_weights(config, places):
        method.load_initial(source)
    train(Run(config, "bench", dataset, method, module, {}, "", folder, {}, None))
    log = folder / "log" / "metrics.csv"
    found = pd.read_csv(log).get(f"val/{metric}") if log.is_file() else None
    if found is None or not found.notna().any():
        raise DataError(
            f"{config.method.name}: no {metric} on validation; does it learn, and is anybody in frame there?"
        )
    return [float(value) for value in found.dropna()]


def _said(values: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}` {value}" for name, value in values.items())


def _space(space: Range | tuple[Any, ...]) -> str:
    return f"{space.low:g} to {space.high:g}" if isinstance(space, Range) else ", ".join(map(str, space))
