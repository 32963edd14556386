"""``gazebench settings``: every setting with its origin."""

from __future__ import annotations

from typing import Annotated

import typer

from gazebench.cli.options import command


def add_to(app: typer.Typer) -> None:
    @command(app, "settings", "gazebench settings hclora vat")
    def settings(
        method: Annotated[str, typer.Argument(help="A name of `gazebench list`, or a Python file.")] = "",
        dataset: Annotated[str, typer.Argument(help="A name of `gazebench list`, or a Python file.")] = "gazeworld",
    ) -> None:
        """List the settings of a method on a data set.

        They are the options of `gazebench bench METHOD DATASET`, with the recipe's values as defaults. Without a
        method, print docs/settings.md: the settings of all methods with their origins.
        """
        if method:
            from gazebench.engine.config import settings_help

            typer.echo(settings_help(method, dataset))
        else:
            from gazebench.report.settings import sheet

            typer.echo(sheet(), nl=False)
