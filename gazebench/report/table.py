"""The one table of the suite: typed columns, rows of texts and numbers with intervals, and four writers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup
from tabulate import tabulate

from gazebench.metrics.intervals import Interval, format_value
from gazebench.metrics.scoring import Score
from gazebench.report.page import render

ARROWS = {True: "↑", False: "↓", None: ""}
LATEX_SIGNS = {
    "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "±": r"$\pm$",
    "✓": r"$\checkmark$", "✗": r"$\times$", "×": r"$\times$",
}  # fmt: skip


@dataclass(frozen=True)
class HtmlCell:
    """A cell of a page: its HTML, and what rows are sorted by."""

    html: Markup
    order: str | float


Cell = str | int | float | Score | Interval | HtmlCell | None
"""A ``Score`` is one run's value with its interval over sources, an ``Interval`` a mean over seeds."""


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        title: the heading.
        group: the heading above it, shared by neighbours.
        digits: decimals of numbers; None in a column of texts.
        higher: whether larger values are better; None where there is no direction.
        name: in CSV and in pages; the title where it is empty.
        about: a longer heading, shown when the mouse is over it.
    """

    title: str
    group: str = ""
    digits: int | None = None
    higher: bool | None = None
    name: str = ""
    about: str = ""

    @property
    def heading(self) -> str:
        return f"{self.title} {ARROWS[self.higher]}".strip()

    @property
    def key(self) -> str:
        return self.name or self.title


@dataclass(frozen=True)
class Table:
    """Rows below columns.

    Attributes:
        marks: best values bold, second best underlined, as printed; two rows have no second.
        digits: decimals by row instead of by column.
        attributes: of the rows in HTML.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    marks: bool = False
    digits: Sequence[int] = ()
    attributes: Sequence[Mapping[str, str]] = ()

    def markdown(self) -> str:
        """A pipe table; a heading above columns stands in each of them."""
        headings = [
            f"{column.group}<br>{column.heading}" if column.group else column.heading for column in self.columns
        ]
        cells = self.cells("**{}**", "<ins>{}</ins>", lambda text: text.replace("|", r"\|"))
        return str(tabulate(cells, headings, tablefmt="github", disable_numparse=True))

    def frame(self) -> pd.DataFrame:
        """All in full precision: of a number with an interval the parts are columns of their own."""
        found: dict[str, list[str | float | None]] = {}
        for index, column in enumerate(self.columns):
            parts = [_parts(row[index]) for row in self.rows]
            for end in dict.fromkeys(["", *(end for one in parts for end in one)]):
                found[column.key + end] = [one.get(end) for one in parts]
        return pd.DataFrame(found)

    def csv(self) -> str:
        return csv(self.frame(), "%.6g")

    def latex(self) -> str:
        """A ``tabular`` with booktabs rules; headings above columns span them."""

        def escape(text: str) -> str:
            return "".join(LATEX_SIGNS.get(sign, sign) for sign in text)

        headings = [(escape(column.group), escape(column.heading)) for column in self.columns]
        cells = self.cells(r"\textbf{{{}}}", r"\underline{{{}}}", escape)
        frame = pd.DataFrame(cells, columns=pd.MultiIndex.from_tuples(headings))
        places = "".join("l" if column.digits is None else "c" for column in self.columns)
        return str(frame.style.hide(axis="index").to_latex(hrules=True, multicol_align="c", column_format=places))

    def html(self, css: str = "plain", *, sortable: bool = False, counts: bool = False) -> Markup:
        """A ``<table>``.

        Args:
            css: its class.
            sortable: headings are buttons.
            counts: of every ``Score`` the number of its samples is shown, too.
        """
        return Markup(
            render("table.html.j2", table=self, css=css, sortable=sortable, counts=counts, span=span, order=order)
        )

    def cells(self, best: str, second: str, escape: Callable[[str], str] = str) -> list[list[str]]:
        """All cells as texts; the marks are formats, e.g. ``**{}**``."""
        formats = {0: best, 1: second, None: "{}"}
        shown: list[list[str]] = [[] for _ in self.rows]
        for index, column in enumerate(self.columns):
            values = [row[index] for row in self.rows]
            places = ranks(values, column) if self.marks else [None] * len(values)
            for row, (value, place) in enumerate(zip(values, places, strict=True)):
                digits = self.digits[row] if self.digits else column.digits
                shown[row].append(formats[place].format(escape(text(value, digits))))
        return shown


def csv(frame: pd.DataFrame, float_format: str | None = None) -> str:
    return str(frame.to_csv(index=False, lineterminator="\n", float_format=float_format))


def number(cell: Cell) -> float | None:
    """A cell's value; None where it is no number or missing."""
    if isinstance(cell, Score):
        return cell.value
    value = cell.mean if isinstance(cell, Interval) else cell
    return float(value) if isinstance(value, int | float) and not math.isnan(value) else None


def order(cell: Cell) -> str | float:
    """What a page sorts a cell by."""
    if isinstance(cell, HtmlCell | str):
        return cell.order if isinstance(cell, HtmlCell) else cell
    found = number(cell)
    return "" if found is None else found


def span(cell: Cell, digits: int | None) -> str:
    """The interval as text: ``± half`` of a mean over seeds, both ends of one run's value; empty without one."""
    if isinstance(cell, Interval):
        return "" if cell.half is None else f"± {format_value(cell.half, digits or 0)}"
    if isinstance(cell, Score) and cell.low is not None:
        return f"{format_value(cell.low, digits or 0)} to {format_value(cell.high, digits or 0)}"
    return ""


def text(cell: Cell, digits: int | None) -> str:
    """A cell as text; a missing value is a dash."""
    if isinstance(cell, str):
        return cell
    value = number(cell)
    if value is None or isinstance(cell, HtmlCell):
        return format_value(None)
    shown, interval = f"{value:,.{digits or 0}f}", span(cell, digits)
    return f"{shown} ({interval})" if interval and isinstance(cell, Score) else f"{shown} {interval}".strip()


def ranks(values: Sequence[Cell], column: Column) -> list[int | None]:
    """Which values are best (0) and second (1) as printed; equal ones share a place, and two rows have no second."""
    shown = [None if (value := number(cell)) is None else round(value, column.digits or 0) for cell in values]
    known = sorted({value for value in shown if value is not None}, reverse=bool(column.higher))
    if column.higher is None or sum(value is not None for value in shown) < 2:
        return [None] * len(values)
    places = dict(zip(known, [0, 1] if len(known) > 2 else [0], strict=False))
    return [None if value is None else places.get(value) for value in shown]


def _parts(cell: Cell) -> dict[str, str | float | None]:
    if isinstance(cell, Interval):
        return {"": number(cell), " half-width": cell.half, " seeds": cell.count}
    if isinstance(cell, Score):
        return {"": cell.value, " low": cell.low, " high": cell.high}
    return {"": None if isinstance(cell, HtmlCell) else cell}
