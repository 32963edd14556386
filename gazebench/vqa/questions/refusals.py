"""Reads whether an answer refuses, and why. What only mentions several people, or nothing, does not refuse."""

from __future__ import annotations

import re
from typing import Final

from gazebench.vlm.parsing import fields, sentences

REFUSED: Final = "refused"
"""A refusal that gives no reason."""

_PEOPLE: Final = (
    r"(?:people|persons?|individuals?|men|man|women|woman|boys?|girls?|child(?:ren)?|heads?|faces?|candidates?"
    r"|players?|kids?)"
)
_PICTURE: Final = r"(?:picture|image|frame|photo(?:graph)?|scene|view|shot|screen)(?! (?:window|frame))"
_REASONS: Final = (
    ("outside", re.compile(
        rf"\boutside (?:of )?(?:the |this |of )*(?:visible |camera )?(?:edges? of the |borders? of the )?{_PICTURE}\b"
        rf"|\bout(?:side)? of (?:the )?(?:frame|picture|image|view|shot)\b|\boff[- ](?:camera|screen|frame|image)\b"
        rf"|\bbeyond (?:the )?(?:edges? of (?:the )?|borders? of (?:the )?)?{_PICTURE}\b"
        rf"|\b(?:target|object|something|someone|what|that|which|look\w*|gaz\w+|star\w+)\b[^.;]{{0,60}}(?:\bnot"
        rf"|n't) (?:\w+ )?(?:in|within|inside|visible in|shown in|part of) (?:the |this )?{_PICTURE}\b")),
    ("ambiguous", re.compile(
        rf"\b(?:several|multiple|many|two|three|four|both|various|more than one"
        rf"|different)\s+(?:\w+\s+){{0,3}}{_PEOPLE}\b"
        rf"[^.;]{{0,60}}\b(?:fits?|match(?:es)?|matching (?=the|this|that|your|[\"'])|meets?|qualif\w+|could be"
        rf"|descri\w+|refer\w*|meant)\b"
        rf"|\b(?:both|more than one|several|all|two|three)(?: of them)? (?:fits?|match(?:es)?)\b"
        rf"|\b(?:unclear|not clear|unsure|not sure|not specified|unspecified|don't know|do not know|cannot tell"
        rf"|can't tell)\s+"
        rf"(?:who|whom|which)\s*(?:{_PEOPLE}|one|of (?:them|the))?\b(?! (?:is|are) looking| the person| they)"
        rf"|\bambigu(?:ous|ity)\b|^which (?:{_PEOPLE}|one|of)\b|\bspecify which\b|\bclarify (?:which|who)\b"
        rf"|\bwhich (?:{_PEOPLE}|one) (?:do you|you|is meant|are you|the question)\b")),
    ("non_exist", re.compile(
        rf"(?:^|[,:;]\s*|\b(?:but|that|because|since|as) )(?:there(?:(?:'s| is| are| was| were"
        rf"| appears? to be| seems? to be)(?:n't| not| no)| do(?:es)?(?: not|n't) (?:appear"
        rf"|seem) to be)\b[^.;]{{0,40}}\b(?:{_PEOPLE}|one|anyone|anybody|somebody|someone|match|human)\b"
        rf"|(?:nobody|no one|no-one|none of (?:them|the {_PEOPLE})|no (?:such |visible |human )?(?:{_PEOPLE}))\b"
        rf"(?! in particular)[^.;]{{0,30}}\b(?:fits?|match\w*|is|are|was|in|here|there|wear\w*|with|like|at|visible"
        rf"|present|exists?|appears?|meets|sits|stands|has|who)\b"
        rf"|i (?:do not|don't|can ?not|can't|could not|couldn't) (?:see|find|locate|spot|detect) (?:anyone|anybody"
        rf"|someone"
        rf"|somebody|(?:any|an?|the|such|this|that)\b(?:(?!eye|gaze|face|look)[^.;,]){{0,40}}(?:{_PEOPLE}|one)\b))"
        rf"|\b(?!heads?\b|faces?\b){_PEOPLE}(?!')\b(?:(?!\b(?:eyes|gaze|face|head|looking|looks)\b)[^.;]){{0,60}}"
        rf"\b(?:is|are)(?: not|n't) visible\b"
        rf"|\b(?:{_PEOPLE}|box|region|area|location)(?!')\b(?:(?!\b(?:eyes|gaze|face|looking|looks)\b)[^.;]){{0,60}}"
        rf"\b(?:do(?:es)?(?: not|n't) (?:exist|appear)"
        rf"|(?:is|are)(?: not|n't) (?:actually )?(?:present|there|shown|depicted|in (?:the|this) {_PICTURE})\b"
        rf"|contains? no |is empty|do(?:es)?(?: not|n't) contain )")),
)  # fmt: skip
_CLEARLY: Final = r"(?:(?:\w+ly|really|quite|even|be able to)\s+)*"
_REFUSES: Final = re.compile(
    rf"\b(?:can ?not|can't|could not|couldn't|unable to|impossible to|not possible to|hard to|difficult to|no way to"
    rf"|not able to|do not|don't|won't|will not)\s+{_CLEARLY}"
    r"(?:tell|determine|answer|say|identify|know|see|provide|help|assist|locate|find|infer|judge|make out"
    r"|be (?:\w+ly )?(?:answered|determined|told|said|inferred|identified|established|ascertained))\b"
    r"|\bunanswerable\b|\bnot answerable\b|\b(?:un|in)determin|\b(?:insufficient|lack of) information\b"
    r"|(?:\bnot|n't)[^.;]{0,30}\b(?:enough|sufficient) (?:information|context|detail)"
    r"|\brefuse to answer\b|\b(?:unclear|not clear|uncertain|unknown) (?:what|where|in which|which way|if|whether"
    r"|from)\b"
    r"|^(?:unknown|unclear|not visible|n/a|none|not applicable|not sure|i am not sure|i'm not sure|unsure)\W*$"
)
_ANSWERS: Final = re.compile(
    r"(?:\b(?:is|are|appears?|seems?|be|was)|'s|'re)\b[^.;]{0,30}\b(?:look|gaz|star|glanc|focus|direct|fac|watch|turn"
    r"|point)\w*|\b(?:looks?|gazes?|stares?|glances?|watches|faces)\b|[\[({]\s*\"?\d|\bpoint_2d\b"
)
_AFTER_ALL: Final = re.compile(
    r"\b(?:but|however|nevertheless|that said|even so|still|best guess|best estimate|if i had to|my guess)\b"
)
_ONLY_PEOPLE: Final = re.compile(
    rf"^there (?:are|seem to be|appear to be)\b[^.;]{{0,20}}\b(?:several|multiple|many|two|three"
    rf"|more than one)\b[^.;]{{0,30}}{_PEOPLE}\b"
)


def read_refusal(text: str) -> str:
    """Why an answer refuses: ``outside``, ``ambiguous``, ``non_exist``, or ``refused`` without a reason; else "".

    The first sentence that refuses or answers decides. "I cannot tell, but they are looking left" answers.

    Args:
        text: without thoughts, see ``gazebench.vlm.parsing.answer_parts``.
    """
    for name, value in fields(text):
        if name in ("cannot_tell", "refusal", "unanswerable") and value not in (None, False, "", "no", "none", "None"):
            return _reason(_low(str(value))) or REFUSED
        if (name == "answerable" and value is False) or (name == "status" and value in ("outside", "ambiguous")):
            return str(value) if value else REFUSED
        if isinstance(value, str) and (reason := _first(value)):
            return reason
    return _first(text)


def _first(text: str) -> str:
    parts = sentences(_low(text))
    for index, part in enumerate(parts):
        found = _refuses(part)
        if found:
            reason, end = found
            rest = " ".join([part[end:], *parts[index + 1 :]])
            after_all = _AFTER_ALL.search(rest)
            if after_all and _ANSWERS.search(rest, after_all.end()) and not _refuses(rest[after_all.end() :]):
                return ""
            return reason
        if _ANSWERS.search(part):
            return ""
    return "ambiguous" if any(map(_ONLY_PEOPLE.search, parts)) else ""


def _refuses(part: str) -> tuple[str, int] | None:
    """The reason, and where the refusal ends."""
    for reason, pattern in _REASONS:
        if match := pattern.search(part):
            return reason, match.end()
    match = _REFUSES.search(part)
    return (REFUSED, match.end()) if match else None


def _reason(text: str) -> str:
    found = _refuses(text)
    return found[0] if found else next((reason for reason, _ in _REASONS if reason in text), "")


def _low(text: str) -> str:
    lines = (" ".join(line.split()) for line in text.lower().replace("’", "'").splitlines())
    return "\n".join(re.sub(r"[*_`]{2,}", "", line) for line in lines)
