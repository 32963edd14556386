"""Tables of means with their 95% intervals over seeds; nothing here knows of plans or runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd
from tabulate import tabulate

from gazebench.metrics.intervals import Interval

Mark = Literal["best", "second", ""]


@dataclass(frozen=True)
class Column:
    """A metric on a subset, as a table shows it."""

    metric: str
    subset: str
    heading: str
    digits: int
    higher_is_better: bool


@dataclass(frozen=True)
class Line:
    """A row of a table: the cells that name it, and an interval a column."""

    labels: tuple[str, ...]
    values: tuple[Interval, ...]

    @property
    def count(self) -> int:
        """The seeds behind it, the most any column has."""
        return max((value.count for value in self.values), default=0)


def marks(values: Sequence[Interval], digits: int, higher_is_better: bool) -> list[Mark]:
    """Which means are best and second as printed; equal ones share a mark, and two rows have no second."""
    known = {round(value.mean, digits) for value in values if value.count}
    order = sorted(known, reverse=higher_is_better)
    if sum(bool(value.count) for value in values) < 2:
        return [""] * len(values)
    second = order[1] if len(order) > 2 else None
    places: dict[float | None, Mark] = {second: "second", order[0]: "best"}
    return [places.get(round(value.mean, digits), "") if value.count else "" for value in values]


def markdown(labels: Sequence[str], columns: Sequence[Column], lines: Sequence[Line]) -> str:
    """The table with a block of columns a subset: best bold, second underlined, the number of seeds last."""
    headings, cells, previous = list(labels), [list(line.labels) for line in lines], ""
    for index, column in enumerate(columns):
        block = f"**{column.subset.capitalize()}**" if column.subset != previous else ""
        previous = column.subset
        headings.append(f"{block}<br>{column.heading} {'↑' if column.higher_is_better else '↓'}")
        values = [line.values[index] for line in lines]
        for row, value, mark in zip(
            cells, values, marks(values, column.digits, column.higher_is_better), strict=True
        ):  # fmt: skip
            text = value.text(column.digits)
            row.append({"best": f"**{text}**", "second": f"<ins>{text}</ins>", "": text}[mark])
    for row, line in zip(cells, lines, strict=True):
        row.append(str(line.count))
    return tabulate(cells, headers=[*headings, "seeds"], tablefmt="github", disable_numparse=True)


def csv(labels: Sequence[str], columns: Sequence[Column], lines: Sequence[Line]) -> str:
    """The same in full precision: mean, half-width and number of seeds of every column."""
    frame = pd.DataFrame([line.labels for line in lines], columns=list(labels))
    for index, column in enumerate(columns):
        values, name = [line.values[index] for line in lines], f"{column.metric} ({column.subset})"
        frame[name] = [value.mean for value in values]
        frame[f"{name} half-width"] = [math.nan if value.half is None else value.half for value in values]
        frame[f"{name} seeds"] = [value.count for value in values]
    return str(frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
