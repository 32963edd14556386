"""``gazebench new``: a package of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gazebench.cli.options import command


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Write an installable package with a method or a data set of your own.", no_args_is_help=True
    )
    app.add_typer(group, name="new", epilog="Example: gazebench new method glance")
    for kind in ("methods", "datasets"):
        _add(group, kind)


def _add(group: typer.Typer, kind: str) -> None:
    one = kind.removesuffix("s")

    @command(group, one, f"gazebench new {one} mine", help=f"Write a package with a small {one} to start from.")
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
