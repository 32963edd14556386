"""``gazebench video``: where the people of a video look."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

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


@command(app, "video", "gazebench video clip.mp4 --weights RUN --smooth one-euro", settings=True)
def video(
    ctx: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="VIDEO", help="A video, or the number of a camera, from 0: it is recorded first.")
    ],
    weights: Annotated[
        str, typer.Option(help="Folder or weights.pt of a run, or published weights: a file, an address, or a name.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files; the video's name with -gaze by default.")
    ] = None,
    stride: Annotated[int, typer.Option(min=1, help="Look at one frame in so many.")] = 1,
    smooth: Annotated[
        Literal["none", "exponential", "one-euro"], typer.Option(help="Smooth the points of a person over time.")
    ] = "none",
    boxes: Annotated[
        Path | None,
        typer.Option(help="Head boxes: COCO JSON, CSV or Parquet; the image is the frame's number, from 0."),
    ] = None,
    faces: Annotated[bool, typer.Option("--faces", help="Boxes given are faces: grow them to heads.")] = False,
    detector: DetectorOption = "centerface",
    confidence: ConfidenceOption = 0.3,
    head_class: HeadClassOption = None,
    detector_pixels: PixelsOption = "rgb-1",
    classes: ClassesOption = "",
    clip: ClipOption = "laion2b_s34b_b79k",
    clip_model: ClipModelOption = "ViT-B-32",
    shortest: Annotated[float, typer.Option(min=0, help="Seconds of the shortest episode.")] = 0.5,
    bridge: Annotated[float, typer.Option(min=0, help="Seconds of the longest interruption of an episode.")] = 0.2,
    table: Annotated[Literal["parquet", "csv", "jsonl"], typer.Option(help="Form of the table.")] = "parquet",
    overlay: Annotated[bool, typer.Option(help="Write the video with heads and gaze.")] = True,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Of a camera's recording; until Ctrl-C by default.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Frames at a time.")] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")] = "auto",
    again: Annotated[bool, typer.Option("--again", help="Begin anew instead of continuing.")] = False,
) -> None:
    """Find out where the people of a video look, and how long.

    The folder gets a table with a row for each person and frame, a summary (dwell times, looking at each other, at the
    same thing), a timeline, and the video with heads and gaze. Repeating the command continues where it was stopped.
    """
    from functools import cache, partial

    from gazebench.core.errors import DataError
    from gazebench.core.extras import needs
    from gazebench.core.files import file_digest, write_atomically
    from gazebench.data.detector import HeadDetector
    from gazebench.data.video import Video, record
    from gazebench.engine.bulk import BoxFile
    from gazebench.engine.model import GazeModel, method_of_weights
    from gazebench.engine.things import things_of
    from gazebench.engine.video import analyse_video
    from gazebench.report.video import save_overlay, save_timeline, tables

    needs("av", "video")
    path, camera = Path(source), source.isdigit()
    out = out or Path(f"camera{source}-gaze" if camera else f"{path.stem}-gaze")
    if not camera:
        Video(path)  # a file that is none is said before the weights are read
    elif boxes is not None:
        raise DataError("--boxes are of a video's frames; a camera has none yet")
    if boxes is None and detector == "none":
        raise DataError("--detector none: a video needs heads; give --boxes, an ONNX model, or centerface")
    method, identity = method_of_weights(weights, given_settings(ctx))
    finder = cache(partial(HeadDetector, detector, confidence, head_class, detector_pixels))
    model = GazeModel(method, finder, device, identity)
    things = things_of(classes, clip, clip_model) if classes else None
    given: dict[str, Any] = {}
    if boxes is not None:
        given = {"boxes": BoxFile(boxes, faces, tracks=True), "identity": {"boxes": file_digest(boxes), "faces": faces}}
    if camera:
        path = out / "recording.mp4"
        if again or not path.is_file():
            out.mkdir(parents=True, exist_ok=True)
            record(int(source), path, seconds)
    result = analyse_video(
        path, model, out, **given, stride=stride, smooth=smooth, things=things, batch_size=batch,
        table=f"gaze.{table}", shortest=shortest, bridge=bridge, again=again,
    )  # fmt: skip
    save_timeline(result, out / "timeline.png")
    text = tables(result)
    write_atomically(out / "summary.md", text)
    if overlay:
        save_overlay(result, out / "overlay.mp4")
    print(text)
    facts = result.summary
    told = [f"{facts['processed']:,} of {facts['frames']:,} frames", f"{len(facts['tracks']):,} people"]
    told += [f"{facts[name]:,} {name.replace('_', ' ')}" for name in ("mended_times", "damaged_packets") if facts[name]]
    print(f"{', '.join(told)}: {out}", file=sys.stderr)
