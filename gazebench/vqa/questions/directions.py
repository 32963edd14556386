"""Reads a direction: where somebody looks, not where they are."""

from __future__ import annotations

import re
from typing import Final

from gazebench.vlm.parsing import How, fields, sentences

_AXES: Final = {
    "left": r"left(?:wards?|most|-hand)?|west(?:wards?|ern)?",
    "right": r"right(?:wards?|most|-hand)?|east(?:wards?|ern)?",
    "up": r"up(?:wards?|per)?|top(?:most)?|above|north(?:wards?|ern)?|higher",
    "down": r"down(?:wards?)?|lower|bottom|below|beneath|south(?:wards?|ern)?",
}
_WORD: Final = re.compile("|".join(rf"\b(?P<{axis}>{words})\b" for axis, words in _AXES.items()))
_SECTORS: Final = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))
"""Right minus left, up minus down, in the order of ``geometry.DIRECTIONS``."""
_COMPASS: Final = ("e", "ne", "n", "nw", "w", "sw", "s", "se")
_ARROWS: Final = {
    "→": "right", "↗": "top-right", "↑": "up", "↖": "top-left", "←": "left", "↙": "bottom-left", "↓": "down",
    "↘": "bottom-right", "➡": "right", "⬅": "left", "⬆": "up", "⬇": "down",
}  # fmt: skip
_NO_DIRECTION: Final = re.compile(
    r"(?<!the )(?<!their )(?<!his )(?<!her )(?<!to )\bright (?=(?:at|now|in front|in the (?:middle|cent)|into|next"
    r"|behind|beside|there|here|before"
    r"|after|past|under|above|below|through)\b)"
    r"|\b(?:on|on the) top of\b|\btop of\b|\bupside\b|\b(?:up|down) close\b|\bclose[- ]up\b|\b(?:back|left"
    r"|right)[- ]handed\b"
    r"|\b(?:stand|sit|pick|set|hold|ly|dress|mak|lift|kneel|writ|put|plac)(?:s|t?ing|es)?[- ](?:up|down)\b"
    r"|\b(?:in|wearing|with) (?:an? |the |his |her )?(?:\w+ )?top\b(?![- ](?:left|right))"
    r"|\b(?:left|right) (?:hand(?! side)|arm|eye|ear|shoulder|knee|foot|leg|wrist)\b|\bleft (?:behind|over|out|alone)\b"
    r"|\ball right\b|\bupper body\b|\blower (?:body|half)\b"
)
"""Words of a direction that mean none."""
_OF_ANOTHER: Final = re.compile(
    r"(?:\bnot|n't|\brather than|\binstead of|\bnever|\bno longer)(?: (?:looking|facing|to|towards?|the|directly"
    r"|straight|really)){0,3}$"
    r"|\b(?:away from|turned from|opposite(?: of| to)?|from)(?: (?:the|their|his|her|our|image|viewer's))*$"
)
"""What stands before a direction that is denied, or that somebody turns away from."""
_CUE: Final = re.compile(
    r"\b(?:say|look(?:s|ing|ed)?|gaz(?:e|es|ing|ed)|star(?:es|ing|ed)|glanc(?:es|ing|ed)|fac(?:es|ing|ed)|peer(?:s"
    r"|ing|ed)"
    r"|(?:is|are|seems?|appears?) (?:\w+ly )?(?:directed|turned|tilted|focused|pointed|pointing|oriented|angled|aimed"
    r"|cast|fixed)"
    r"|directed|oriented|point(?:s|ing) |line of sight|eyes (?:are )?(?:directed|turned|cast)|direction(?: of (?:the "
    r"|their |his |her )?(?:gaze|look|view))?)\b"
)
_PLACE: Final = re.compile(r"\b(?:on|at|in|from|near)(?: the| their| his| her)?(?: far| very| extreme)?$")
"""What stands before a direction that tells somebody's place."""
_PERSON: Final = re.compile(
    r"\b(?:person|man|woman|boy|girl|child|individual|people|one|head|face|they|he|she|it|who|located|seated|standing"
    r"|sitting|positioned|figure|player|kid|baby|located|is|are|wearing|shirt|hair)\b[^,.;]*$"
)
_JOIN: Final = re.compile(
    r"(?:[\s,&()/–-]|\b(?:and|or|to|the|a|bit|little|slightly|somewhat|then|also|towards?|of|his|her|their|its|our|your"
    r"|viewer's|viewers|image's|side|corner|part|area|portion|direction|diagonally|mostly|more|very|frame|picture|image"
    r"|camera|straight|directly)\b)*"
)
_IN_THE_PICTURE: Final = re.compile(
    r"\b(?:which|that) (?:is|would be|means|corresponds to)\b(?=.*\b(?:picture|image|frame|photo|viewer))"
)
"""What stands between a person's own left or right and that of the picture."""
_THUS: Final = re.compile(
    r"^(?:so|thus|therefore|hence|overall|in summary|in conclusion|conclusion|finally|based on)\b"
)


def read_direction(text: str) -> tuple[int, How]:
    """The sector 0 to 7 of ``geometry.DIRECTIONS``, or -1, and how it was read.

    "The person on the left looks up" is above. Where sentences disagree, one that concludes ("so ...") decides.

    Args:
        text: without thoughts, see ``gazebench.vlm.parsing.answer_parts``.
    """
    named = [
        sector for name, value in fields(text)
        if isinstance(value, str) and re.search(r"direction|answer|gaze|look|label|sector|response", name)
        and (sector := _in_sentence(value.lower(), False)) >= 0
    ]  # fmt: skip
    if named:
        return (named[0], "json") if len(set(named)) == 1 else (-1, "")
    low = re.sub(r"[*`\"“”]+|(?<!\w)'|'(?!\w)|[\[({]+[\d\s.,%]*[\])}]+", "", text.lower().replace("’", "'"))
    for sign, name in _ARROWS.items():
        low = low.replace(sign, f" {name} ")
    parts = sentences(re.sub(r"(north|south|up|down|top|bottom)-?(east|west|left|right)", r"\1 \2", low))
    parts = [part for part in parts if not part.endswith("?")] or parts
    if not parts:
        return -1, ""
    if (first := _alone(parts[0])) >= 0:  # the answer, and maybe an explanation after it
        return first, "text"
    for cued in (True, False):
        found = {part: sector for part in parts if (sector := _in_sentence(part, cued)) >= 0}
        *_, concluding = ["", *(part for part in found if _THUS.search(part))]
        sectors = {found[concluding]} if concluding else set(found.values())
        if sectors:
            return (sectors.pop(), "text") if len(sectors) == 1 else (-1, "")
    return -1, ""


def _alone(part: str) -> int:
    """The sector of a text that names a direction and nothing else."""
    if (short := part.strip(" .")) in _COMPASS:
        return _COMPASS.index(short)
    match = _WORD.search(part)
    if match is None or re.search(r"\w", _JOIN.sub("", part[: match.start()])):
        return -1
    sector, end = _phrase(part, match.start())
    return sector if not re.search(r"\w", part[end:]) else -1


def _in_sentence(part: str, cued: bool) -> int:
    """The first direction in a sentence: after a word of looking, or (not ``cued``) that is nobody's place."""
    part = _NO_DIRECTION.sub(lambda match: "." * len(match[0]), part)
    if (match := _IN_THE_PICTURE.search(part)) and (sector := _in_sentence(part[match.end() :], False)) >= 0:
        return sector
    cues = [match.end() for match in _CUE.finditer(part)] if cued else [0]
    start = cues[0] if cues else len(part)
    while match := _WORD.search(part, start):
        before = part[: match.start()].rstrip(" -")
        sector, end = _phrase(part, match.start())
        between = part[max(cue for cue in cues if cue <= match.start()) : match.start()] if cued else ""
        somebody = not cued or re.search(r"\b(?:who|person|man|woman|boy|girl|child)\b", between)
        position = _PLACE.search(before)
        if match[0].endswith("most") or (somebody and position and _PERSON.search(before[: position.start()])):
            start = end
        elif _OF_ANOTHER.search(before):
            start = match.end()
        else:
            return sector
    return -1


def _phrase(part: str, start: int) -> tuple[int, int]:
    """The sector of the direction words that follow each other from a place on, and their end."""
    has, place, either = dict.fromkeys(_AXES, False), start, False
    while match := _WORD.match(part, place):
        has[str(match.lastgroup)] = True
        end = match.end()
        join = _JOIN.match(part, end)
        place = join.end() if join else end
        if _WORD.match(part, place):
            either = either or bool(re.search(r"\bor\b|/", part[end:place]))
    axes = has["right"] - has["left"], has["up"] - has["down"]
    both = (has["left"] and has["right"]) or (has["up"] and has["down"]) or (either and sum(has.values()) > 1)
    return (_SECTORS.index(axes) if axes in _SECTORS and not both else -1), end
