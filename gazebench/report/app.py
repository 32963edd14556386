"""A page to try methods on one's own pictures, by Gradio: ``gazebench app``, or a Space of three lines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from gazebench.core.errors import UserError
from gazebench.core.extras import needs
from gazebench.core.plugins import PluginError, embedded
from gazebench.data.detector import CENTERFACE
from gazebench.engine.bulk import boxes_of_one
from gazebench.engine.model import GazeModel, as_array, load
from gazebench.engine.registry import usable
from gazebench.engine.run import RUNS
from gazebench.report.pictures import ANSWER, HEAD, panels

DEFAULT = "gazelle_gazeworld"
EVERYBODY = "everybody"
COLUMNS = ["person", "x", "y", "in the picture", "looks at person", "score of the head"]
ABOUT = (
    "Give a picture. Heads are found, or yours to draw: click a head to ask about it alone; where there is none, click "
    "two corners. Boxes are `x0,y0,x1,y1` in pixels, one a line, and may be edited. Points are shares of the picture's "
    "width and height."
)
OF_DRAWN_SCENES = (
    "This model is embedded in the package, so that the page works without a download. It was trained on drawn scenes "
    "alone: what it says of a photograph means nothing. Choose published weights or a run of yours for photographs."
)


def choices() -> list[str]:
    """Models that the page offers: embedded ones, finished runs of this machine, published weights."""
    runs = sorted(RUNS.glob("*/*/*/weights.pt"), key=lambda path: -path.stat().st_mtime)
    published = [
        name for _, found in usable("methods") if not isinstance(found, PluginError) for name in found.published
    ]
    return [*embedded("GAZE_MODELS"), *(str(path.parent) for path in runs), *published]


def marked(picture: npt.NDArray[np.uint8], boxes: Sequence[Sequence[float]], chosen: str) -> Image.Image:
    """The picture with the head boxes (pixels), numbered from 1; the chosen one in another colour."""
    image = Image.fromarray(picture)
    canvas, width = ImageDraw.Draw(image), max(2, max(image.size) // 300)
    for number, box in enumerate(boxes, start=1):
        colour = ANSWER if str(number) == chosen else HEAD
        canvas.rectangle(list(box), outline=colour, width=width)
        canvas.text((box[0] + width + 1, box[1] + width), str(number), fill=colour, font_size=6 * width)
    return image


def numbers(text: str) -> list[list[float]]:
    """Boxes in pixels of lines ``x0,y0,x1,y1``; lines that are none are left to the prediction, which names them."""
    found = []
    for line in text.splitlines():
        try:
            box = [float(part) for part in line.split(",")]
        except ValueError:
            continue
        if len(box) == 4 and box[0] <= box[2] and box[1] <= box[3]:
            found.append(box)
    return found


def page(weights: str = DEFAULT, detector: str = CENTERFACE, confidence: float = 0.3, device: str = "auto") -> Any:
    """The page as ``gradio.Blocks``; arguments of ``load``.

    Raises:
        UserError: Gradio is not installed.
    """
    gradio = needs("gradio", "app")

    @lru_cache(maxsize=2)
    def model_of(name: str) -> GazeModel:
        return load(name, detector=detector, confidence=confidence, device=device)

    def find(name: str, picture: Image.Image | None) -> tuple[Any, ...]:
        """The picture with its heads, their boxes as text, the choice of people, and what went wrong."""
        if picture is None:
            return None, "", gradio.update(choices=[EVERYBODY], value=EVERYBODY), "", []
        array, said = as_array(picture), ""
        boxes: list[list[float]] = []
        try:
            found, _ = model_of(name).detector(array)
            boxes = (found * np.tile(array.shape[1::-1], 2)).round(1).tolist()
            said = f"{len(boxes)} heads found" + ("" if boxes else "; click two corners to draw one")
        except UserError as error:
            said = f"no heads are looked for ({error}); click two corners to draw one"
        text = "\n".join(",".join(f"{side:g}" for side in box) for box in boxes)
        return *shown(picture, text, EVERYBODY), said, []

    def shown(picture: Image.Image | None, text: str, who: str) -> tuple[Any, str, Any]:
        boxes = numbers(text)
        people = [EVERYBODY, *map(str, range(1, len(boxes) + 1))]
        who = who if who in people else EVERYBODY
        image = None if picture is None else marked(as_array(picture), boxes, who)
        return image, text, gradio.update(choices=people, value=who)

    def click(picture: Image.Image, text: str, who: str, corner: list[float], at: Any) -> tuple[Any, ...]:
        """A click chooses the smallest head it is in, or sets a corner of a new one."""
        x, y = (float(side) for side in at.index)
        boxes = numbers(text)
        inside = [i for i, (x0, y0, x1, y1) in enumerate(boxes) if x0 <= x <= x1 and y0 <= y <= y1]
        if corner:
            box = [min(corner[0], x), min(corner[1], y), max(corner[0], x), max(corner[1], y)]
            lines = [*filter(None, text.splitlines()), ",".join(f"{side:g}" for side in box)]
            return *shown(picture, "\n".join(lines), str(len(boxes) + 1)), [], ""
        if inside:
            smallest = min(inside, key=lambda i: (boxes[i][2] - boxes[i][0]) * (boxes[i][3] - boxes[i][1]))
            return *shown(picture, text, str(smallest + 1)), [], ""
        return *shown(picture, text, who), [x, y], f"one corner at {x:g}, {y:g}; click the opposite one"

    click.__annotations__["at"] = gradio.SelectData  # by which Gradio knows that it is to be given

    def look(name: str, picture: Image.Image | None, text: str, who: str) -> tuple[Any, str, list[list[Any]]]:
        """The picture with heatmaps and points, the sentences, and the table."""
        if picture is None:
            raise gradio.Error("give a picture first")
        try:
            array, lines = as_array(picture), [line for line in text.splitlines() if line.strip()]
            boxes, _ = boxes_of_one(lines, faces=False)("the picture", array.shape[1], array.shape[0])
            if not lines:
                raise UserError("there is no head; click two corners on the picture, or enter a box")
            gaze = model_of(name).predict(array, boxes)  # all of them: who looks at whom depends on the others
        except UserError as error:
            raise gradio.Error(str(error)) from error
        wanted = [i for i in range(len(gaze.people)) if who in (EVERYBODY, str(i + 1))]
        file, sentences = BytesIO(), gaze.sentences()
        panels(array, gaze, wanted).savefig(file, dpi=110)
        rows = [
            [
                i + 1, *(round(side, 3) for side in one.point), None if one.inout is None else round(one.inout, 3),
                None if one.looks_at is None else one.looks_at + 1, one.score,
            ]
            for i, one in enumerate(gaze.people) if i in wanted
        ]  # fmt: skip
        return Image.open(file), "\n".join(sentences[i] for i in wanted), rows

    def note(name: str) -> str:
        return OF_DRAWN_SCENES if name in embedded("GAZE_MODELS") else ""

    with gradio.Blocks(title="gazebench", analytics_enabled=False) as blocks:
        gradio.Markdown(f"# Who looks where?\n{ABOUT}")
        model = gradio.Dropdown(
            [*dict.fromkeys([weights, *choices()])], value=weights, label="Method", allow_custom_value=True,
            info="an embedded model, a run's folder, published weights, or an address of weights",
        )  # fmt: skip
        honest, corner = gradio.Markdown(note(weights)), gradio.State([])
        with gradio.Row():
            with gradio.Column():
                picture = gradio.Image(type="pil", label="Picture", sources=["upload", "clipboard", "webcam"])
                heads = gradio.Image(type="pil", label="Heads", interactive=False, buttons=[])
                said = gradio.Markdown()
                boxes = gradio.Textbox(label="Head boxes", lines=3)
                who = gradio.Dropdown([EVERYBODY], value=EVERYBODY, label="Who")
                button = gradio.Button("Where do they look?", variant="primary")
            with gradio.Column():
                result = gradio.Image(type="pil", label="Gaze", interactive=False, buttons=["download", "fullscreen"])
                words = gradio.Textbox(label="In words", lines=3)
                table = gradio.Dataframe(headers=COLUMNS, label="Values", interactive=False)
        state = [heads, boxes, who]
        quiet = {"api_visibility": "private", "show_progress": "hidden"}
        model.change(note, model, honest, **quiet)
        picture.change(find, [model, picture], [*state, said, corner], **quiet)
        heads.select(click, [picture, boxes, who, corner], [*state, corner, said], **quiet)
        boxes.blur(shown, [picture, boxes, who], state, **quiet)
        who.input(shown, [picture, boxes, who], state, **quiet)
        button.click(look, [model, picture, boxes, who], [result, words, table], api_visibility="private")
    return blocks


def serve(
    weights: str = DEFAULT, detector: str = CENTERFACE, confidence: float = 0.3, device: str = "auto", **launch: Any
) -> Any:
    """Opens the page; ``launch`` are options of Gradio's ``launch``. No request leaves the machine.

    Raises:
        UserError: Gradio is not installed.
    """
    gradio = needs("gradio", "app")
    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # Google's are not asked
    options = {"theme": theme, "share": False, "footer_links": []}
    return page(weights, detector, confidence, device).launch(**options | launch)
