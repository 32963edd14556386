"""``gazebench export``: trained weights as a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from gazebench.cli.options import command, given_settings

app = typer.Typer()


@command(app, "export", "gazebench export RUN --out gaze.onnx", settings=True)
def export(
    ctx: typer.Context,
    weights: Annotated[str, typer.Argument(help="Folder or weights.pt of a run, or published weights.")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("gaze.onnx"),
    format: Annotated[Literal["onnx"], typer.Option(help="The form of the file.")] = "onnx",
) -> int:
    """Write a trained method with its frozen backbone as an ONNX file, for any number of people in a picture.

    The command compares the file with the method and prints the largest difference and both times. The exit code is 1
    if they differ by more than 1e-4. `scripts/onnx_example.py` uses the file without torch.
    """
    from gazebench.engine.export import PARITY, export_onnx
    from gazebench.engine.model import method_of_weights

    method, _ = method_of_weights(weights, given_settings(ctx))
    made = export_onnx(method, out)
    passed = made.difference <= PARITY
    print(
        f"{out}: {out.stat().st_size / 2**20:.1f} MiB; largest difference to the method {made.difference:.1e} "
        f"({'passes' if passed else 'FAILS'}: {PARITY:g})\n"
        f"a picture with two people on this processor: torch {made.torch_seconds:.3f} s, onnxruntime "
        f"{made.onnx_seconds:.3f} s"
    )
    return int(not passed)
