"""``gazebench check``: the contract test."""

from __future__ import annotations

from typing import Annotated

import typer

from gazebench.cli.options import command, given_settings

app = typer.Typer()


@command(app, "check", "gazebench check my_method.py --model.width 64", settings=True)
def check(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(help="Methods and data sets: names or Python files; all by default.")
    ] = None,
) -> int:
    """Run the contract test.

    The command prints what is wrong with each method and data set and what to change. The exit code is 1 if anything
    is.
    """
    from gazebench.core.plugins import PluginError
    from gazebench.engine.contract import check as run
    from gazebench.engine.registry import KINDS, entries

    chosen = names or [name for kind in KINDS for name in entries(kind)]
    failed = 0
    for name in chosen:
        try:
            findings = run(name, *given_settings(ctx))
        except PluginError as error:
            if len(chosen) == 1:
                raise
            findings = [str(error)]
        failed += bool(findings)
        print(f"{name}: {'passes' if not findings else f'{len(findings)} finding(s)'}")
        for finding in findings:
            print(f"  - {finding}")
    return 1 if failed else 0
