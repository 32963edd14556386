"""Reads points and boxes in answers: JSON, the tags of several model families, and prose, by a declared convention."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from gazebench.vlm.coordinates import Convention, looks_like_shares
from gazebench.vlm.parsing import How, answer_parts, json_values, number, numbers

Point = tuple[float, float]
LONGEST_LIST: Final = 40_000
"""Characters of an answer with many boxes that are read."""


class Written(NamedTuple):
    """Two numbers (a point) or four (a box) as an answer writes them.

    Attributes:
        values: x, y or x0, y0, x1, y1; in the other order where the convention says so, unless ``in_order``.
        how: where they stand.
        convention: that of the numbers, where the text itself says it (per cent signs, a tag with its own scale).
        in_order: whether x is known to come first, since the text names x and y.
    """

    values: tuple[float, ...]
    how: How
    convention: Convention | None = None
    in_order: bool = False

    def points(self, convention: Convention, size: tuple[int, int] | None) -> list[Point] | None:
        """The point, or the corners of the box, in [0, 1]; None where the numbers are not of the convention."""
        own = self.convention or convention
        pairs = [self.values[place : place + 2] for place in range(0, len(self.values), 2)]
        ordered = [(y, x) if own.y_first and not self.in_order else (x, y) for x, y in pairs]
        found = [own.point(x, y, size) for x, y in ordered]
        return None if None in found else [point for point in found if point is not None]

    def box(self, convention: Convention, size: tuple[int, int] | None) -> tuple[float, ...] | None:
        """The box as shares of the image, wherever they are; None where the numbers are not of the convention."""
        own = self.convention or convention
        edges = own.edges(size)
        if edges is None or (own.scale in ("thousand", "pixels") and looks_like_shares(*self.values)):
            return None
        swapped = own.y_first and not self.in_order
        return tuple(self.values[index ^ swapped] / edges[index % 2] for index in range(4))


def read_point(text: str, convention: Convention, size: tuple[int, int] | None = None) -> tuple[Point | None, How]:
    """The one point of an answer in [0, 1], and how it was read; of a box its centre.

    A part that announces the answer ("final answer: ...", ``<answer>``) comes first, tags before JSON before prose, and
    points before boxes. Numbers that describe the head, the person or the picture do not count. Several different
    points, or numbers that are not of the convention, are not read.

    Args:
        text: without thoughts, see ``answer_parts``.
        convention: of the coordinates.
        size: (width, height) in pixels of the image as it was shown, which pixels need.
    """
    text = _plain(text)
    for read in (_tags, _named, _prose):
        found = list(dict.fromkeys(read(text)))
        for length in (2, 4):
            chosen = [one for one in found if len(one.values) == length]
            if chosen:
                points = [one.points(convention, size) for one in chosen]
                places = {(sum(x for x, _ in each) / len(each), sum(y for _, y in each) / len(each))
                          for each in points if each}  # fmt: skip
                if None in points or len(places) != 1:
                    return None, ""
                return places.pop(), chosen[0].how
    return None, ""


def read_boxes(text: str) -> list[Written]:
    """The boxes of an answer as they are written, those in tags, in JSON and in prose alike."""
    found: list[Written] = []
    for part in answer_parts(text, longest=LONGEST_LIST)[-1:]:
        plain = _plain(part)
        for read in (_tags, _named, _prose):
            found = found or [one for one in read(plain) if len(one.values) == 4]
    return found


def _plain(text: str) -> str:
    """Full-width signs as plain ones."""
    return unicodedata.normalize("NFKC", text).translate(str.maketrans("【】〔〕「」〈〉", "[][][]()"))


# Tags ------------------------------------------------------------------------------------------------------------

_N: Final = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)"
_ATTRIBUTES: Final = re.compile(r"<points?\b([^>]*)>", re.IGNORECASE)
_X: Final = re.compile(rf"\bx(\d*)\s*=\s*[\"']?\s*({_N})", re.IGNORECASE)
_Y: Final = re.compile(rf"\by(\d*)\s*=\s*[\"']?\s*({_N})", re.IGNORECASE)
_LOC: Final = re.compile(r"(?:<loc\d{4}>)+")
_LOC_1000: Final = re.compile(r"(?:<loc_\d+>)+")
_TAGGED: Final = re.compile(
    r"<(?:\|?)(box|bbox|point|points|det|quad|box_start|point_start|click)(?:\|?)>(.*?)"
    r"<(?:/\1|\|/\1\||\|box_end\||\|point_end\|)>",
    re.DOTALL | re.IGNORECASE,
)


def _tags(text: str) -> Iterator[Written]:
    for match in _ATTRIBUTES.finditer(text):
        xs, ys = dict(_X.findall(match[1])), dict(_Y.findall(match[1]))
        for name in (name for name in xs if name in ys):
            # Molmo's own tag has one decimal and is in per cent; others write whole numbers of their convention.
            molmo = Convention("percent") if "." in xs[name] + ys[name] else None
            yield Written((number(xs[name]), number(ys[name])), "tag", molmo, in_order=True)
    for match in _LOC.finditer(text):  # PaliGemma: y first, of 1024
        bins = [int(one) for one in re.findall(r"\d{4}", match[0])]
        for group in _groups(bins):
            pairs = [(x / 1023, y / 1023) for y, x in zip(group[::2], group[1::2], strict=True)]
            yield Written(tuple(value for pair in pairs for value in pair), "tag", Convention("unit"), in_order=True)
    for match in _LOC_1000.finditer(text):  # Florence-2: x first, of 1000
        for group in _groups([int(one) for one in re.findall(r"\d+", match[0])]):
            yield Written(tuple(group), "tag", Convention(), in_order=True)
    for match in _TAGGED.finditer(text):
        values = [number(one) for one in re.findall(_N, match[2])]
        yield from (Written(tuple(group), "tag") for group in _groups(values))


def _groups(values: list[Any]) -> Iterator[list[Any]]:
    """Numbers in fours, or two of them."""
    if len(values) == 2:
        yield values
    elif values and len(values) % 4 == 0:
        yield from (values[place : place + 4] for place in range(0, len(values), 4))


# JSON ------------------------------------------------------------------------------------------------------------

_CORNERS: Final = (("x0", "y0", "x1", "y1"), ("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"),
                   ("x_min", "y_min", "x_max", "y_max"), ("left", "top", "right", "bottom"))  # fmt: skip
_PAIRS: Final = (("x", "y"), ("x_coordinate", "y_coordinate"), ("cx", "cy"), ("x_center", "y_center"))
_OTHER: Final = re.compile(
    r"score|conf|prob|size|scale|width|height|colou?r|head|face|eye|person|observer|subject|thought|reason|explan"
    r"|origin"
)
"""Names of JSON fields whose numbers are no answer, or are the person who was asked about."""


def _named(text: str) -> Iterator[Written]:
    """What stands in JSON with names, or in an answer that is JSON and nothing else."""
    for value in json_values(text)[0]:
        if isinstance(value, dict) or any(isinstance(item, dict) for item in value) or _is_json(text):
            yield from _values(value)


def _is_json(text: str) -> bool:
    return text[:1] in "[{" and text[-1:] in "]}" and len(json_values(text)[0]) == 1


def _values(value: Any, depth: int = 0) -> Iterator[Written]:
    if depth > 12:
        return
    if isinstance(value, list):
        if len(value) in (2, 4) and numbers(value):
            yield Written(tuple(map(number, value)), "json")
        else:
            for item in value:
                yield from _values(item, depth + 1)
    elif isinstance(value, dict):
        low = {str(name).lower(): item for name, item in value.items()}
        for names in (*_CORNERS, *_PAIRS):
            found = [low.get(name) for name in names]
            if numbers(found):
                yield Written(tuple(map(number, found)), "json", in_order=True)
                return
        for name, item in low.items():
            if not _OTHER.search(name):
                yield from _values(item, depth + 1)
    elif isinstance(value, str) and depth:  # {"answer": "(512, 300)"}
        yield from (one._replace(how="json") for one in _prose(value))


# Prose -----------------------------------------------------------------------------------------------------------

_UNIT: Final = r"\s*(%|percent\b|per cent\b|px\b|pixels?\b)?"
_OPEN, _CLOSE = r"[(\[<{]", r"[)\]>}]"
_BOX: Final = re.compile(
    rf"{_OPEN}\s*({_N})[\s,;]+({_N})[\s,;]+({_N})[\s,;]+({_N})\s*{_CLOSE}"
    rf"|\(\s*({_N})\s*,\s*({_N})\s*\)\s*(?:,|to|and|-|–)\s*\(\s*({_N})\s*,\s*({_N})\s*\)"
)
_PAIR: Final = re.compile(rf"{_OPEN}\s*({_N}){_UNIT}\s*[,;\s]\s*({_N}){_UNIT}\s*{_CLOSE}", re.IGNORECASE)
_LABELLED: Final = re.compile(
    rf"\bx(?:[ _-]?(?:coordinate|value|axis))?\d?[\"']?\s*(?:[:=≈~]|is|of|at)+\s*(?:about |around "
    rf"|approximately )?[\"']?({_N})[\"']?{_UNIT}[\s,;.]*(?:and\s+)?(?:the\s+)?"
    rf"[\"']?y(?:[ _-]?(?:coordinate|value|axis))?\d?[\"']?\s*(?:[:=≈~]|is|of|at)+\s*"
    rf"(?:about |around |approximately )?[\"']?({_N}){_UNIT}",
    re.IGNORECASE,
)
_BARE: Final = re.compile(
    rf"(?<![\d.,\w-])({_N}){_UNIT}\s*(?:,\s*|\s+(?=[\d.]+\W*$))({_N}){_UNIT}(?![\w%]|[.,]\s?\d)", re.IGNORECASE
)
_FROM: Final = re.compile(
    rf"({_N})\s*(?:%|percent|per cent)\s*(?:of the way\s*)?(?:from|across from|in from)\s*(?:the\s*)?left\b[^.\d]*"
    rf"({_N})\s*(?:%|percent|per cent)\s*(?:of the way\s*)?(?:from|down from)\s*(?:the\s*)?top\b",
    re.IGNORECASE,
)
_OF_SOMETHING_ELSE: Final = re.compile(
    r"\b(?:heads?|faces?|eyes?|nose|ears?|person|man|woman|boy|girl|observer|size|resolution|dimensions?|origin)\b"
    r"(?![^.;\n]*\b(?:look|gaz|star|glanc|point|target|toward|focus|direct|aim|at about|landing|coordinates?)\w*)"
    r"[^.;\n]*$",
    re.IGNORECASE,
)
_CUE: Final = re.compile(
    r"(?:\b(?:at|points?|is|coordinates?|location|position|target|to|about|around|near|approximately|roughly)|[:=~≈])"
    r"[\s:*=~≈]*$",
    re.IGNORECASE,
)


def _prose(text: str) -> Iterator[Written]:
    text = re.sub(r"[*`]+", "", text)
    for match in _FROM.finditer(text):
        yield Written((number(match[1]), number(match[2])), "text", Convention("percent"), in_order=True)
    labelled = list(_pairs(_LABELLED.finditer(text), text, in_order=True))
    yield from labelled
    boxes = list(_BOX.finditer(text))
    for match in boxes:
        if not _OF_SOMETHING_ELSE.search(text[: match.start()]):
            yield Written(tuple(number(group) for group in match.groups() if group is not None), "text")
    rest = _BOX.sub(" ; ", text)
    pairs = list(_pairs(_PAIR.finditer(rest), rest))
    yield from pairs
    if not (pairs or labelled or boxes):
        # Without brackets only after a word that announces a place, or as the whole answer.
        alone = (
            match for match in _BARE.finditer(rest)
            if _CUE.search(rest[: match.start()]) or not re.search(r"\w", rest[: match.start()] + rest[match.end() :])
        )  # fmt: skip
        yield from _pairs(alone, rest)


def _pairs(matches: Iterable[re.Match[str]], text: str, in_order: bool = False) -> Iterator[Written]:
    for match in matches:
        if not _OF_SOMETHING_ELSE.search(text[: match.start()]):
            units = {(unit or "").lower()[:1] for unit in (match[2], match[4])} - {""}
            own = Convention("pixels" if "px" in match[0].lower() or "pixel" in match[0].lower() else "percent")
            yield Written((number(match[1]), number(match[3])), "text", own if units else None, in_order)
