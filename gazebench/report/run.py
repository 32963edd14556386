"""What a run shows when it is done: its scores in the terminal, its page, and the board of this machine."""

from __future__ import annotations

import sys
from pathlib import Path

from gazebench.engine.config import Config
from gazebench.engine.run import Outcome, Places
from gazebench.metrics.protocol import Protocol
from gazebench.metrics.scoring import Score
from gazebench.report import board, run_page, site
from gazebench.report.record_page import scores_table
from gazebench.report.run_data import Record
from gazebench.report.table import Cell, Column, Table, text


def show(outcome: Outcome, config: Config, places: Places) -> None:
    """Prints the result of a run, refreshes its board, and writes its page if it is not there yet.

    A page that cannot be written costs no result.
    """
    record = outcome.record
    if not record:  # a further rank of a distributed run
        return
    if outcome.repeated:
        print("this run was finished before; here is its record (change a setting or the seed for another one)")
    dataset = config.dataset.cls
    print_scores(record, dataset.protocol)
    seconds = sum(record["wall_seconds"].values())
    print(f"\ntook      {seconds:.0f} s, peak memory {max(record['peak_memory_bytes'].values()) / 2**30:.1f} GiB")
    board.refresh(places.boards, record["dataset"], dataset)
    print(f"board     {_short(places.boards / record['dataset'] / 'README.md')}")
    page = outcome.folder / "report.html"
    try:
        if not (outcome.repeated and page.is_file()):
            run_page.write(outcome.folder, places)
        print(f"page      {_short(page)}")
        print(f"all runs  {_short(site.build(site.of_runs(places), places.boards, places.runs))}")
    except Exception as error:
        print(f"no page ({type(error).__name__}: {error})", file=sys.stderr)
        print(f"`gazebench report {outcome.folder}` tries again", file=sys.stderr)


def print_scores(record: Record, protocol: Protocol) -> None:
    """The scores of a record with the number of people, and what kind of result it is."""
    scores = scores_table(record, protocol)
    rows = [
        [cell if isinstance(cell, str) else _with_count(cell, digits) for cell in row]
        for row, digits in zip(scores.rows, scores.digits, strict=True)
    ]
    print(f"\n{record['method']['title']} on {record['dataset']}: {record['protocol']['id']}, value (people)\n")
    print(Table([Column(column.title) for column in scores.columns], rows).markdown())
    if record["data"].get("subsets"):
        print(f"\nSubsets by the prober {record['data']['subsets']['name']}.")
    status = record["status"]
    if status["class"] == "smoke":
        print("\n".join(["\nA smoke run, not a benchmark result:", *(f"  - {why}" for why in status["reasons"])]))
    elif status["class"] == "unverified":
        print("\n".join(["\nNot verified:", *(f"  - {why}" for why in status["reasons"])]))
    elif status["class"] == "synthetic":
        print("\nSynthetic data: no published benchmark.")


def _with_count(score: Cell, digits: int) -> str:
    return f"{score.value:.{digits}f} ({score.count:,})" if isinstance(score, Score) else text(score, digits)


def _short(path: Path) -> Path:
    path = path.resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
