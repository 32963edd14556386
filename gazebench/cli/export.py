"""``gazebench export``: trained weights as files for other programs."""

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
    backbone: Annotated[
        Literal["included", "apart"],
        typer.Option(help="apart: what is frozen goes to a file of its own, NAME.backbone.onnx."),
    ] = "included",
    precision: Annotated[
        Literal["fp32", "fp16", "int8"], typer.Option(help="Of weights and computation; int8 is for CPUs.")
    ] = "fp32",
    score: Annotated[
        str, typer.Option(metavar="DATASET", help="Also score the files on the test split of a data set.")
    ] = "",
    images: Annotated[int, typer.Option(min=0, help="Score at most so many images; 0: all.")] = 0,
) -> int:
    """Write a trained method with its frozen backbone as an ONNX file, for any number of people in a picture.

    The command compares the file with the method and prints the largest difference and both times. The exit code is 1
    if they differ by more than 1e-4 in fp32. With --score it prints what both score. `scripts/onnx_example.py` uses the
    file without torch.
    """
    from gazebench.engine.config import dataset_with
    from gazebench.engine.export import PARITY, export_onnx, scores_of
    from gazebench.engine.model import method_of_weights

    settings = given_settings(ctx)
    of_data = [word for word in settings if score and word.startswith("--dataset.")]
    method, _ = method_of_weights(weights, [word for word in settings if word not in of_data])
    data = dataset_with(score, of_data) if score else None
    made = export_onnx(method, out, apart=backbone == "apart", precision=precision)
    passed = precision != "fp32" or made.difference <= PARITY
    verdict = f" ({'passes' if passed else 'FAILS'}: {PARITY:g})" if precision == "fp32" else ""
    for path in made.paths:
        print(f"{path}: {precision}, {path.stat().st_size / 2**20:.1f} MiB")
    print(
        f"largest difference to the method {made.difference:.1e}{verdict}\n"
        f"a picture with two people on this processor: torch {made.torch_seconds:.3f} s, onnxruntime "
        f"{made.onnx_seconds:.3f} s"
    )
    if data is not None:
        print(f"\n{data.card.title}, test     method    files   difference")
        for metric, subsets in scores_of(method, made.run, data, images).items():
            for subset, (own, theirs) in subsets.items():
                print(f"{metric + ' ' + subset:<24} {own:8.4f} {theirs:8.4f} {theirs - own:+10.4f}")
    return int(not passed)
