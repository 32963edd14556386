"""``gazebench new``: writes a package for a new method or data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gazebench.cli.options import command

app = typer.Typer(
    name="new",
    help="Write an installable package with a method or a data set of your own.",
    epilog="Example: gazebench new method glance",
    no_args_is_help=True,
)


def _add(kind: str) -> None:
    one = kind.removesuffix("s")

    @command(app, one, f"gazebench new {one} mine", help=f"Write a package with a small {one} to start from.")
    def new(
        name: Annotated[str, typer.Argument(help="A short lower-case name for the command line.")],
        folder: Annotated[Path | None, typer.Argument(help="Folder of the package; gazebench-NAME by default.")] = None,
    ) -> None:
        from gazebench.scaffold.package import distribution, write

        target = folder or Path(distribution(name))
        for path in write(kind, name, target):  # type: ignore[arg-type]
            print(path)
        print(f"\nnow, in the environment of gazebench:\n  pip install -e {target}\n  gazebench check {name}")
        if kind == "methods":
            print(f"  gazebench bench {name}")
        else:
            print(f"  gazebench data fake {name} tiny\n  gazebench bench center {name} --dataset.root tiny")


for each in ("methods", "datasets"):
    _add(each)
