"""The console command ``gazebench``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import gazebench
from gazebench.cli import (
    bench,
    check,
    compare,
    data,
    evaluate,
    export,
    heads,
    leaderboard,
    listing,
    new,
    page,
    predict,
    probe,
    report,
    score,
    settings,
    study,
    tables,
    tune,
    video,
    vqa,
    weights,
)

app = typer.Typer(
    name="gazebench",
    help="Gaze-following methods behind one interface, on the same data, scored by the same protocol.",
    epilog="Example: gazebench bench gazelle gazeworld. `gazebench COMMAND --help` has one for every command.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (
    bench, evaluate, score, predict, video, page, heads, export, study, tune, probe, vqa, compare, report, tables,
    listing, leaderboard, data, new, weights, check, settings,
):  # fmt: skip
    app.add_typer(module.app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gazebench {gazebench.__version__}")
        raise typer.Exit


VersionOption = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]


@app.callback()
def _main(version: VersionOption = False) -> None:
    pass


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0 done, 1 a check failed, 2 bad input, 130 interrupted."""
    try:
        app(args=None if argv is None else list(argv), prog_name="gazebench")
    except SystemExit as done:
        return int(done.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
