"""``gazebench predict``: where the people of one image look."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from gazebench.cli.options import command, given_settings

app = typer.Typer()


@command(app, "predict", "gazebench predict photo.jpg --box 120,40,180,110 --weights RUN/weights.pt", settings=True)
def predict(
    ctx: typer.Context,
    image: Annotated[Path, typer.Argument(help="A picture.")],
    box: Annotated[
        list[str] | None,
        typer.Option(metavar="X0,Y0,X1,Y1", help="A head box, in pixels or all in [0, 1]; repeat for more people."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="weights.pt of a run, or published weights: a file, an address, or their name.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File for the picture with heatmaps; beside the picture by default.")
    ] = None,
) -> None:
    """Predict where the people of an image look.

    The command writes the image with heatmaps and prints the points as JSON. A photograph is turned upright by its
    orientation tag; boxes and points are those of the upright image. Boxes are clipped to the image.
    """
    import numpy as np

    from gazebench.data.images import load_image
    from gazebench.engine.one_image import method_of_weights, parse_box, predict_image
    from gazebench.report.pictures import save_overlay

    picture = load_image(image, own=True)
    height, width = picture.shape[:2]
    boxes = np.stack([parse_box(text, width, height) for text in box]) if box else np.full((1, 4), np.nan)
    people = predict_image(method_of_weights(weights, given_settings(ctx)), picture, boxes, image.name)
    out = out or image.with_name(f"{image.stem}_gaze.png")
    save_overlay(
        out,
        picture,
        [
            {
                "head": one.head,
                "answer": one.point,
                "heatmap": one.heatmap,
                "title": "" if one.inout is None else f"in frame: {one.inout:.2f}",
            }
            for one in people
        ],
    )
    answers = [
        {
            "box": None if np.isnan(one.head).any() else [round(float(side), 6) for side in one.head],
            "point": [round(value, 6) for value in one.point],
            "inout": None if one.inout is None else round(one.inout, 6),
        }
        for one in people
    ]
    print(json.dumps({"image": image.name, "size": [width, height], "people": answers, "overlay": str(out)}, indent=1))
