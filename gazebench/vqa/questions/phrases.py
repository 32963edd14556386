"""Reads what an answer names, and tells whether that is a category."""

from __future__ import annotations

import re
from typing import Final

from gazebench.vlm.parsing import How, fields, sentences
from gazebench.vqa.questions.templates import templates

_FIELDS: Final = ("answer", "object", "target", "gaze_target", "label", "description", "name", "category", "phrase")
_BE: Final = r"(?:is|are|was|'s|'re|be|appears? to be|seems? to be|looks to be)"
_LEAD: Final = re.compile(
    rf"^.*?(?:\b{_BE}\s+(?:\w+ly\s+|now\s+|still\s+|also\s+)*(?:looking|gazing|staring|glancing|peering|focus(?:ed"
    rf"|ing|sed)|directed|fixed|fixated|turned|aimed|concentrating)|\b(?:looks|gazes|stares|glances|focuses|peers"
    r"|(?<!let's )(?<!let us )(?<!let me )look|gaze)|\beyes are"
    r"|\bgaze is)\b[^.]*?\b(?:at|on|upon|into|towards?|to)\b\s+"
    rf"|^(?:the|this|that|he|she|they|it)\b[^.]*?\b(?:{_BE}\s+(?:\w+ly\s+)?(?:watching|observing|viewing|examining"
    rf"|inspecting|facing|reading|studying|eyeing)|watches|observes|examines|inspects|faces)\s+"
    rf"|^(?:the|their|his|her|what)\b[^.]*?\b(?:target|object|focus|thing|item|attention|gaze|looking at|looks at"
    rf"|look at)\b[^.]*?\b{_BE}\s+(?:on\s+|at\s+|likely\s+|probably\s+)*",
    re.DOTALL,
)
_TRAIL: Final = re.compile(
    rf"\s*(?:,\s*)?\b(?:{_BE} (?:what|where|the (?:target|object|thing|focus|item))\b.*|i (?:think|believe|guess"
    rf"|suppose)\b.*|holds (?:the|their|his"
    rf"|her) (?:gaze|attention).*)$"
)
_FILLER: Final = re.compile(
    r"^(?:(?:i (?:think|believe|guess|suppose)|i'd say|i would say),?\s+|(?:it|this|that|there)(?:'s| is| are"
    r"| would be)\s+"
    r"|looking (?:\w+ )?at\s+|(?:is|are|at|probably|likely|possibly|perhaps|maybe|apparently|most likely"
    r"|sure[,!]?)\s+)+"
)
_ARTICLE: Final = re.compile(r"^(?:an?|the|some|his|her|their|its)\s+")
_AFTER: Final = re.compile(
    r"\s+(?:of|on|in|at|with|without|near|next|beside|behind|under|above|below|over|between|that|which|who|whose|held"
    r"|holding|to"
    r"|from|by|for|and|being|sitting|standing|lying|wearing|hanging|placed|located|positioned|resting|walking|playing"
    r"|looking|in front)\b.*|[,;:(].*"
)


def read_phrase(text: str) -> tuple[str, How]:
    """The thing an answer names, in lower case and without article, and how it was read; "" where it names none.

    Args:
        text: without thoughts, see ``gazebench.vlm.parsing.answer_parts``.
    """
    named = dict(reversed([(name, value) for name, value in fields(text) if isinstance(value, str) and value.strip()]))
    for name in _FIELDS:
        if name in named:
            return _clean(named[name]), "json"
    if text[:1] in "{[":
        return "", ""  # JSON without a name
    parts = [_low(part) for part in sentences(text)]
    leading = [match[0] for part in parts if (match := _LEAD.match(part)) and part[match.end() :].strip(" .!")]
    chosen = next((part for part in parts if leading and part.startswith(leading[0])), parts[0] if parts else "")
    return _clean(chosen), "text"


def _low(text: str) -> str:
    return " ".join(re.sub(r"[*_`]+", "", text).lower().replace("’", "'").split())


def _clean(text: str) -> str:
    low = re.sub(r"^(?:object|thing|target|gaze target)\s*:\s*", "", _bare(_low(text)))
    low = re.split(r"\.(?:\s|$)|\s[—–-]\s", low)[0]
    low = _TRAIL.sub("", low) or low
    low = _FILLER.sub("", _bare(_LEAD.sub("", low, count=1)) or _bare(low))
    return _bare(_ARTICLE.sub("", _bare(low)))


def _bare(text: str) -> str:
    """A text without the signs around it; a quotation in it stays whole."""
    text = text.strip(" '.!-•")
    return text.strip('"').strip(" '.!-") if text.startswith('"') or text.count('"') == 1 else text


def names(phrase: str, label: str) -> bool:
    """Whether a phrase names a category, by its own word or a synonym, as its head noun or as the whole phrase.

    Words after a preposition only describe: a "cup on the table" is a cup and no table.
    """
    head = _AFTER.sub("", phrase.lower()).strip() or phrase.lower()
    for word in templates().same(label):
        if re.search(rf"\b{re.escape(word)}(e?s)?$", head) or phrase.lower() == word:
            return True
    return False
