"""``gazebench settings``: every setting with its origin."""

from __future__ import annotations

from typing import Annotated

import typer

from gazebench.cli.options import command


def add_to(app: typer.Typer) -> None:
    @command(app, "settings", "gazebench settings hclora vat")
    def settings(
        method: Annotated[str, typer.Argument(help="A method; without one, the sheet of all methods.")] = "",
        dataset: Annotated[str, typer.Argument(help="A data set.")] = "gazeworld",
    ) -> None:
        """List every option of `gazebench bench METHOD DATASET`, or print docs/settings.md."""
        if method:
            from gazebench.engine.config import settings_help

            typer.echo(settings_help(method, dataset))
        else:
            from gazebench.report.settings import sheet

            typer.echo(sheet(), nl=False)
