"""The console command ``gazebench``; thin: every setting comes from a constructor's signature."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import gazebench
from gazebench.core.errors import DataError, UserError

if TYPE_CHECKING:  # importing torch takes seconds: not for --help
    from gazebench.engine.config import Config
    from gazebench.engine.run import Places

OVERVIEW = """gazebench: gaze-following methods behind one interface, on the same data, scored by the same protocol.

  gazebench bench [METHOD] [DATASET]   train, test, record: a row on the leaderboard (default: gazelle gazeworld)
  gazebench eval WEIGHTS [METHOD DATASET]  test a checkpoint: weights.pt of a run, or an official one
  gazebench score PREDICTIONS DATASET  score saved predictions, ours or anyone's
  gazebench predict IMAGE --box x0,y0,x1,y1 --weights FILE   where does this person look: a picture and JSON
  gazebench study PLAN.yaml            many runs with seeds, resumably: a paper's tables and figures, with intervals
  gazebench probe DATASET              ask a vision-language model what is salient: consistent / inconsistent people
  gazebench vqa build|ask|score|table  gaze as questions: write them, have any model answer, score, models by tasks
  gazebench compare RUN_A RUN_B        who is better where: paired intervals by subset, head size, distance ...
  gazebench report RUN                 a run's page: settings, curves, errors by group, large angles, pictures
  gazebench tables [ID ...]            the papers' tables, published numbers beside ours; --run makes what is missing
  gazebench list                       methods, datasets and protocols
  gazebench leaderboard [DATASET]      regenerate the boards from the records: pages to sort, filter, search and plot
  gazebench data check|fake|ids DATASET   look at a dataset; write a tiny one in the official layout; list person ids
  gazebench new method|dataset NAME    write a small installable package with one of your own (docs/plugins.md)
  gazebench check NAME [OPTIONS]       the contract test of a method or dataset, yours too
  gazebench settings                   every setting of every method with its origin (docs/settings.md)

Every constructor argument is an option: --model.lr 1e-3, --dataset.root DIR, --loader.batch_size 32,
--trainer.max_epochs 3, --seed 1; `gazebench bench METHOD DATASET --help` lists them. --config FILE re-runs a run."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0 done, 1 a check failed, 2 bad input, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(OVERVIEW)
        return 0
    if arguments[0] == "--version":
        print(f"gazebench {gazebench.__version__}")
        return 0
    command = COMMANDS.get(arguments[0])
    if command is None:
        import difflib

        near = difflib.get_close_matches(arguments[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        print(f"error: no command {arguments[0]!r}; {hint}`gazebench --help` lists them", file=sys.stderr)
        return 2
    try:
        return command(arguments[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command continues from the last finished epoch", file=sys.stderr)
        return 130


def bench(arguments: list[str]) -> int:
    """Trains, tests and records."""
    from gazebench.engine.config import help_text, resolve
    from gazebench.engine.run import bench as run
    from gazebench.report.run import show

    arguments, places = _places(arguments)
    names = [word for word in arguments if not word.startswith("-")][:2]
    if "--help" in arguments or "-h" in arguments:
        print(help_text(*(names + ["gazelle", "gazeworld"][len(names) :])))
        return 0
    config = resolve(_with_defaults(arguments), base={})
    print(f"{_banner(config)}: reading annotations ...", file=sys.stderr)
    show(run(config, places), config)
    return 0


def evaluate(arguments: list[str]) -> int:
    """Tests a checkpoint; a run's own ``config.yaml`` beside it is the starting point."""
    import yaml

    from gazebench.core.weights import local_file
    from gazebench.engine.config import resolve
    from gazebench.engine.run import bench as run
    from gazebench.report.run import show

    arguments, places = _places(arguments)
    if not arguments or arguments[0].startswith("--"):
        raise DataError("gazebench eval WEIGHTS [METHOD DATASET]: give a file of weights or its address")
    weights = local_file(arguments[0])
    beside = weights.parent / "config.yaml"
    base = yaml.safe_load(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
    config = resolve(arguments[1:], prog="gazebench eval", base=base | {"init": None})
    print(_banner(config), file=sys.stderr)
    show(run(config, places, kind="eval", weights=weights), config)
    return 0


def score(arguments: list[str]) -> int:
    """Scores a file of predictions."""
    from gazebench.engine.registry import load_dataset
    from gazebench.engine.score import score as run
    from gazebench.report.run import print_scores

    arguments, places = _places(arguments)
    names = [word for word in arguments if not word.startswith("--")]
    options = [word for word in arguments if word.startswith("--")]
    if len(names) != 2:
        from gazebench.engine.predictions import FORMAT

        usage = "gazebench score PREDICTIONS DATASET [--dataset.root=DIR] [--title=NAME] [--split=test] [--partial]"
        raise DataError(f"{usage}\n{FORMAT}")
    record, path = run(Path(names[0]), names[1], options, places)
    print_scores(record, load_dataset(names[1]).protocol)
    print(f"record: {path}")
    return 0


def predict(arguments: list[str]) -> int:
    """One picture."""
    from gazebench.engine.picture import main as run

    return run(arguments)


def study(arguments: list[str]) -> int:
    """A plan of many runs."""
    from gazebench.study.command import main as run

    return run(*_places(arguments))


def probe(arguments: list[str]) -> int:
    """Who is consistent with what is salient."""
    from gazebench.probe.command import main as run

    return run(arguments)


def vqa(arguments: list[str]) -> int:
    """Gaze as questions and answers."""
    from gazebench.vqa.command import main as run

    return run(*_places(arguments))


def compare(arguments: list[str]) -> int:
    """Two runs on the same people."""
    from gazebench.report.compare import main as run

    return run(*_places(arguments))


def report(arguments: list[str]) -> int:
    """A run's page."""
    from gazebench.report.page import main as run

    return run(*_places(arguments))


def tables(arguments: list[str]) -> int:
    """The papers' tables."""
    from gazebench.report.tables import main as run

    return run(*_places(arguments))


def settings(arguments: list[str]) -> int:
    """The settings sheet as Markdown."""
    from gazebench.report.settings import sheet

    print(sheet(), end="")
    return 0


def listing(arguments: list[str]) -> int:
    """Methods, datasets, protocols."""
    from gazebench.core.plugins import PluginError
    from gazebench.engine.registry import usable

    broken = 0
    for kind in ("methods", "datasets"):
        print(f"\n{kind}")
        for entry, found in usable(kind):
            if isinstance(found, PluginError):
                broken += 1
                print(f"  {entry.name:<16} BROKEN: {found}")
                continue
            card = found.card  # type: ignore[attr-defined]
            origin = "" if entry.origin == "gazebench" else f"  [from {entry.origin}]"
            if kind == "methods":
                can = ", ".join(sorted(found.capabilities))  # type: ignore[attr-defined]
                print(f"  {entry.name:<16} {card.title}: {card.family}; {can}{origin}")
            else:
                protocol = found.protocol  # type: ignore[attr-defined]
                metrics = ", ".join(use.name for use in protocol.metrics)
                print(f"  {entry.name:<16} {card.title}: protocol {protocol.id} ({metrics}){origin}")
    return 1 if broken else 0


def leaderboard(arguments: list[str]) -> int:
    """Regenerates the boards' pages; ``--check`` only says whether they are up to date."""
    from gazebench.core.plugins import PluginError
    from gazebench.engine.registry import load_dataset
    from gazebench.report.board import local, refresh, stale

    arguments, places = _places(arguments)
    check = "--check" in arguments
    names = [word for word in arguments if not word.startswith("--")]
    names = names or sorted(folder.name for folder in places.boards.glob("*/") if any(folder.glob("*.json")))
    known, unknown = {}, 0
    for name in names:
        try:
            known[name] = load_dataset(name)
        except PluginError as error:  # a plug-in that is broken or gone: the other boards are none of its business
            unknown += 1
            print(f"{places.boards / name} is left as it is: {error}", file=sys.stderr)
    old = stale(places.boards, known) if check else []
    if old:
        print(f"out of date: {', '.join(map(str, old))}; run `gazebench leaderboard`", file=sys.stderr)
    if not check:
        for name, dataset in known.items():
            print(refresh(places.boards, name, dataset))
        pages = [places.boards / "index.html", local(places.boards, places.runs)]
        print(f"pages: {', '.join(str(page) for page in pages if page and page.is_file())}")
    return 1 if old or unknown else 0


def data(arguments: list[str]) -> int:
    """``check``, ``fake`` and ``ids``."""
    from gazebench.data import check as dataset_tools

    tools: dict[str, Callable[[list[str]], int]] = {
        "check": dataset_tools.check,
        "fake": dataset_tools.fake,
        "ids": dataset_tools.ids,
    }
    if not arguments or arguments[0] not in tools:
        raise DataError("gazebench data check|fake|ids DATASET ...")
    return tools[arguments[0]](arguments[1:])


def new(arguments: list[str]) -> int:
    """A package with a method or a dataset to go on from."""
    from gazebench.scaffold import main as run

    return run(arguments)


def check(arguments: list[str]) -> int:
    """The contract test of one name, or of everything."""
    from gazebench.core.plugins import PluginError
    from gazebench.engine.contract import check as run
    from gazebench.engine.registry import KINDS, entries

    options = [word for word in arguments if word.startswith("--")]
    names = [word for word in arguments if word not in options] or [name for kind in KINDS for name in entries(kind)]
    failed = 0
    for name in names:
        try:
            findings = run(name, *options)
        except PluginError as error:
            if len(names) == 1:
                raise
            findings = [str(error)]
        failed += bool(findings)
        print(f"{name}: {'passes' if not findings else f'{len(findings)} finding(s)'}")
        for finding in findings:
            print(f"  - {finding}")
    return 1 if failed else 0


def _places(arguments: list[str]) -> tuple[list[str], Places]:
    """Takes ``--runs`` and ``--boards`` out."""
    from gazebench.engine.run import BOARDS, RUNS, Places

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--boards", type=Path, default=BOARDS)
    known, rest = parser.parse_known_args(arguments)
    return rest, Places(known.runs, known.boards)


def _with_defaults(arguments: list[str]) -> list[str]:
    """Plain ``gazebench bench`` is our main job: Gaze-LLE on the embedded world."""
    if any(word.startswith("--config") for word in arguments):
        return arguments
    names: list[str] = []
    rest = list(arguments)
    while rest and not rest[0].startswith("--"):
        names.append(rest.pop(0))
    if not any(word.startswith("--method") for word in rest) and len(names) < 1:
        names.append("gazelle")
    if not any(word.startswith("--data") for word in rest) and len(names) < 2:
        names.append("gazeworld")
    return names + rest


def _banner(config: Config) -> str:
    values = config.values
    return f"{config.method.card.title} on {config.dataset.card.title}, seed {values['seed']}"


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "bench": bench,
    "eval": evaluate,
    "score": score,
    "predict": predict,
    "study": study,
    "probe": probe,
    "vqa": vqa,
    "compare": compare,
    "report": report,
    "tables": tables,
    "settings": settings,
    "list": listing,
    "leaderboard": leaderboard,
    "data": data,
    "new": new,
    "check": check,
}

if __name__ == "__main__":
    sys.exit(main())
