"""``gazebench new``: a package of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gazebench.cli.options import command


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Write a small installable package with one of your own.", no_args_is_help=True)
    app.add_typer(group, name="new", epilog="Example: gazebench new method glance")
    for kind in ("methods", "datasets"):
        _add(group, kind)


def _add(group: typer.Typer, kind: str) -> None:
    one = kind.removesuffix("s")

    @command(group, one, f"gazebench new {one} mine", help=f"Write a package with a {one} to go on from.")
    def new(
        name: Annotated[str, typer.Argument(help="A short lower-case name; the command line will know it by it.")],
        folder: Annotated[Path | None, typer.Argument(help="Of the package; gazebench-NAME by default.")] = None,
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
