"""``gazebench predict``: where the people of pictures look."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gazebench.cli.options import (
    ClassesOption,
    ClipModelOption,
    ClipOption,
    ConfidenceOption,
    DetectorOption,
    HeadClassOption,
    PixelsOption,
    command,
    given_settings,
)

app = typer.Typer()


@command(app, "predict", "gazebench predict photo.jpg --weights RUN/weights.pt --overlays overlays", settings=True)
def predict(
    ctx: typer.Context,
    pictures: Annotated[
        list[str], typer.Argument(help="Pictures, folders, patterns, or - for stdin: one picture, or a path a line.")
    ],
    weights: Annotated[
        str, typer.Option(help="Folder or weights.pt of a run, or published weights: a file, an address, or a name.")
    ] = "",
    box: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1", help="A head box of the only picture, in pixels or all in [0, 1]; may be repeated."
        ),
    ] = None,
    boxes: Annotated[Path | None, typer.Option(help="A file of head boxes: COCO JSON, CSV or Parquet.")] = None,
    faces: Annotated[bool, typer.Option("--faces", help="Boxes given are faces: grow them to heads.")] = False,
    detector: DetectorOption = "centerface",
    confidence: ConfidenceOption = 0.3,
    head_class: HeadClassOption = None,
    detector_pixels: PixelsOption = "rgb-1",
    out: Annotated[
        Path | None,
        typer.Option(help="Predictions: .jsonl, .csv, .parquet, .fiftyone.json, or - for JSON lines; else sentences."),
    ] = None,
    overlays: Annotated[Path | None, typer.Option(help="Folder for the pictures with heatmaps.")] = None,
    classes: ClassesOption = "",
    clip: ClipOption = "laion2b_s34b_b79k",
    clip_model: ClipModelOption = "ViT-B-32",
    heatmaps: Annotated[bool, typer.Option("--heatmaps", help="Store heatmaps in the file too.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")] = "auto",
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 if a picture cannot be read.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Begin anew instead of continuing.")] = False,
) -> int:
    """Predict where the people of pictures look.

    Heads are found by a detector unless boxes are given. A photograph is turned upright by its orientation tag; boxes
    and points are those of the upright picture. With --out, repeating the command continues where it was stopped.
    """
    from contextlib import nullcontext
    from functools import cache, partial

    from gazebench.core.errors import DataError, some
    from gazebench.core.files import file_digest
    from gazebench.core.journal import Journal
    from gazebench.data.detector import HeadDetector
    from gazebench.engine.bulk import BoxFile, boxes_of_one, find_pictures, predict_pictures
    from gazebench.engine.model import GazeModel, method_of_weights
    from gazebench.engine.predictions import check_ending, save_rows
    from gazebench.engine.things import things_of
    from gazebench.report.pictures import save_gaze

    streams = str(out) == "-"
    if out is not None and not streams:
        check_ending(out, heatmaps)
    found = find_pictures(pictures, sys.stdin.buffer.read)
    if box and len(found) > 1:
        raise DataError(f"--box is for one picture, and these are {len(found):,}; give --boxes FILE")
    method, identity = method_of_weights(weights, given_settings(ctx))
    finder = cache(partial(HeadDetector, detector, confidence, head_class, detector_pixels))
    model = GazeModel(method, finder, device)
    give: Any = lambda *_: (None, None)  # noqa: E731  (heads are found)
    if box:
        give = boxes_of_one(box, faces)
    elif boxes:
        give = BoxFile(boxes, faces)
        identity |= {"boxes": file_digest(boxes), "faces": faces}
    elif detector == "none":
        give = lambda *_: ([[float("nan")] * 4], None)  # noqa: E731
    else:
        identity["detector"] = finder().identity()
    things = things_of(classes, clip, clip_model) if classes else None
    if things is not None:
        identity["things"] = things.identity()
    identity |= {"box": box, "without_boxes": detector == "none", "heatmaps": heatmaps}

    def show(picture: Any, gaze: Any) -> None:
        name = gaze.name.lstrip("/").replace("..", "_").replace(":", "_")
        save_gaze((overlays or Path()) / f"{name}.png", picture, gaze)

    keep: Any = nullcontext({})
    if out is not None and not streams:
        keep = Journal(out.with_suffix(".pictures.jsonl"), identity, again)
    with keep as done:
        entries = predict_pictures(
            model,
            found,
            give,
            done,
            batch_size=batch,
            heatmaps=heatmaps,
            things=things,
            show=show if overlays else None,
        )
        bad = {name: entry["error"] for name, entry in entries.items() if "error" in entry}
        if len(bad) == len(entries):
            raise DataError(some(list(bad.values())))
        rows = [row for entry in entries.values() for row in entry.get("people", ())]
        if out is None:
            for name, entry in entries.items():
                for row in entry.get("people", ()):
                    print(f"{name}: {row['answer']}")
        elif streams:
            for row in rows:
                print(json.dumps(row, ensure_ascii=False))
        else:
            save_rows(out, rows)
    nobody = [name for name, entry in entries.items() if entry.get("people") == []]
    if nobody:
        print(f"{len(nobody):,} pictures without a head: {some(nobody)}", file=sys.stderr)
    for reason in bad.values():
        print(reason, file=sys.stderr)
    print(
        f"{len(rows):,} people in {len(entries) - len(bad):,} pictures, {len(bad):,} pictures unreadable"
        + (f": {out}" if out and not streams else ""),
        file=sys.stderr,
    )
    return int(strict and bool(bad))
