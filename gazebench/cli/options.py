"""Options and arguments that several commands share, and the decorator of commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from gazebench.core.errors import UserError

if TYPE_CHECKING:
    from gazebench.engine.run import Places

Pixels = Literal["rgb-1", "rgb-255", "bgr-1", "bgr-255"]
NameArgument = Annotated[str, typer.Argument(help="A name of `gazebench list`, or a Python file.")]
SplitOption = Annotated[str, typer.Option(help="Split of the data set.")]
RunsOption = Annotated[Path | None, typer.Option("--runs", help="Folder of runs; `runs` of the checkout by default.")]
BoardsOption = Annotated[
    Path | None, typer.Option("--boards", help="Folder of records; `leaderboards` of the checkout by default.")
]

DetectorOption = Annotated[
    str, typer.Option(help="Finds heads: centerface, an ONNX model of heads, or none for predictions without a head.")
]
ConfidenceOption = Annotated[float, typer.Option(min=0.0, max=1.0, help="Least score of a detected head.")]
HeadClassOption = Annotated[
    int | None, typer.Option(help="Number of the class of heads in an ONNX model that has no names of its classes.")
]
PixelsOption = Annotated[
    Pixels, typer.Option(help="Order and largest value of the colours that an ONNX model of your own takes.")
]
ClassesOption = Annotated[
    str, typer.Option(metavar="cup,ball,laptop", help="Say by CLIP which of these things is looked at.")
]
ClipOption = Annotated[
    str, typer.Option(help="Weights of CLIP for --classes: a file, or a name that open_clip downloads.")
]
ClipModelOption = Annotated[str, typer.Option(help="The architecture of these weights, as open_clip calls it.")]


def places(runs: Path | None, boards: Path | None) -> Places:
    from gazebench.engine.run import BOARDS, RUNS, Places

    return Places(runs or RUNS, boards or BOARDS)


class SettingsCommand(TyperCommand):
    """A command that also takes settings of methods, data sets, loaders and the trainer: ``--model.lr 1e-3``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta["settings"], rest = split_settings(args)
        return super().parse_args(ctx, rest)


def given_settings(ctx: typer.Context) -> list[str]:
    """The settings of a ``SettingsCommand`` in the form ``--group.name=value``."""
    found: list[str] = ctx.meta.get("settings", [])
    return found


def split_settings(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits arguments into settings, as ``--group.name=value``, and all others."""
    settings: list[str] = []
    rest: list[str] = []
    queue = list(arguments)
    while queue:
        word = queue.pop(0)
        name = word.partition("=")[0]
        if not (name.startswith("--") and "." in name):
            rest.append(word)
        elif "=" in word or not queue:
            settings.append(word)
        else:
            settings.append(f"{word}={queue.pop(0)}")
    return settings, rest


def command(
    app: typer.Typer, name: str, example: str, *, settings: bool = False, **options: Any
) -> Callable[[Callable[..., int | None]], Callable[..., None]]:
    """Decorates a function as a command, with an example below its help.

    The function returns the exit code: 0 or None for success, 1 for a failed check. A ``UserError`` is printed, code 2.
    """

    def decorate(function: Callable[..., int | None]) -> Callable[..., None]:
        @wraps(function)
        def run(*arguments: Any, **named: Any) -> None:
            try:
                code = function(*arguments, **named) or 0
            except UserError as error:
                print(f"error: {error}", file=sys.stderr)
                code = 2
            except KeyboardInterrupt:
                print("\ninterrupted; repeat the command to continue", file=sys.stderr)
                code = 130
            raise typer.Exit(code)

        cls = SettingsCommand if settings else TyperCommand
        return app.command(name, cls=cls, epilog=f"Example: {example}", **options)(run)

    return decorate
