"""``gazebench settings``: every setting with its origin."""

from __future__ import annotations

import typer

from gazebench.cli.options import NameArgument, command

app = typer.Typer()


@command(app, "settings", "gazebench settings hclora vat")
def settings(
    method: NameArgument = "",
    dataset: NameArgument = "gazeworld",
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
