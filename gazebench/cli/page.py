"""``gazebench app``: a page to try methods on pictures."""

from __future__ import annotations

from typing import Annotated

import typer

from gazebench.cli.options import ConfidenceOption, DetectorOption, command

app = typer.Typer()


@command(app, "app", "gazebench app --weights gazelle_dinov2_vitb14_inout")
def page(
    weights: Annotated[
        str, typer.Option(help="What the page begins with: a run, published weights, or an embedded model.")
    ] = "gazelle_gazeworld",
    detector: DetectorOption = "centerface",
    confidence: ConfidenceOption = 0.3,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")] = "auto",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.")] = 7860,
) -> None:
    """Open a page for a browser: drop a picture, take the heads that are found or draw one, see who looks where.

    It begins with a small embedded model that knows drawn scenes only; choose published weights or a run for
    photographs. Nothing leaves this machine.
    """
    from gazebench.report.app import serve

    serve(weights, detector, confidence, device, server_name=host, server_port=port or None)
