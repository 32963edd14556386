"""``gazebench tables``: the papers' tables and figures, ours beside the published values."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gazebench.cli.options import BoardsOption, RunsOption, command, given_settings, places
from gazebench.core.errors import DataError

if TYPE_CHECKING:
    from gazebench.engine.run import Places


Format = StrEnum("Format", ["md", "tex", "html", "csv"])

app = typer.Typer()


@command(app, "tables", "gazebench tables hclora-3 --run --dataset gazeworld --dry-run", settings=True)
def tables(
    ctx: typer.Context,
    ids: Annotated[
        list[str] | None, typer.Argument(help="E.g. hclora-3 or hclora-figure-2; all on one page without any.")
    ] = None,
    dataset: Annotated[str, typer.Option(help="Take our numbers from this data set, e.g. gazeworld.")] = "",
    formats: Annotated[list[Format] | None, typer.Option("--format", help="Also write files; repeat for more.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of what is written; BOARDS/tables by default.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only tell whether the page is up to date.")] = False,
    run: Annotated[bool, typer.Option("--run", help="Run what one table or figure lacks, resumably.")] = False,
    seeds: Annotated[str, typer.Option(help="Of --run, with commas between them.")] = "0,1,2",
    jobs: Annotated[int | None, typer.Option(help="Of --run: runs at a time; one a device by default.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Of --run: only list the runs.")] = False,
    studies: Annotated[
        Path | None, typer.Option(help="Folder of the studies that draw figures; `studies` of the checkout.")
    ] = None,
    runs: RunsOption = None,
    boards: BoardsOption = None,
) -> int:
    """Write the papers' tables and figures with our runs beside them, and the commands for missing runs.

    With --run, settings of every run may follow: --dataset.root DIR, --trainer.max_epochs 3.
    """
    from gazebench.report import paper_tables, published
    from gazebench.report.page import stale, write
    from gazebench.study import papers
    from gazebench.study.run import Study

    where = places(runs, boards)
    folder, options = out or where.boards / "tables", given_settings(ctx)
    words, known, figures = published.vocabulary(), published.load(), published.figures()
    named = {figure.id: figure for figure in figures}
    chosen = [published.table_of(known, name, named) for name in ids or () if name not in named]
    shown = [named[name] for name in ids or () if name in named]
    if not ids:
        chosen, shown = known, figures
    drawn = papers.drawings(studies or papers.STUDIES, figures) if shown else []
    if run:
        if len(ids or ()) != 1:
            raise DataError("gazebench tables --run: give one table or figure")
        target = (chosen or shown)[0]
        plans = [one.summary.plan for one in drawn if target.id in one.figure.paper]
        plan = next((plan.file for plan in plans if plan.dataset == (dataset or target.dataset)), None)
        adopt = plan is None  # a study of that data set is used as the plan, and keeps its results
        plan = plan or _write_plan(target, dataset, seeds, folder, where, drawn)
        return Study.open(plan, where, extra=options).run(jobs=jobs, adopt=adopt, dry_run=dry_run)
    if options:
        raise DataError(f"gazebench tables: {' '.join(options)} is for --run only")
    filled = [paper_tables.fill(table, words, where.boards, dataset) for table in chosen]
    if ids:
        problems = [line for figure in shown for line in papers.draw(figure, drawn, where)]
        print("".join(f"  {line}\n" for line in problems), end="", file=sys.stderr)
    sections = [papers.section(figure, drawn, folder) for figure in shown if ids or not dataset]
    if not ids and not dataset:  # the whole page, with tables of the drawn world too
        for name, layouts in words.stand_ins.items():
            filled += [
                paper_tables.fill(published.table_of(known, layout), words, where.boards, name) for layout in layouts
            ]
        sections += paper_tables.question_sections(where.boards)
    page = folder / "README.md"
    whole = {} if ids else {page: paper_tables.page(filled, sections)}
    if check:
        if ids:
            raise DataError("gazebench tables --check: the check is of the whole page; give no table")
        if stale(whole):
            print(f"out of date: {page}; run `gazebench tables`", file=sys.stderr)
        return 1 if stale(whole) else 0
    if ids:
        print("\n".join([*map(paper_tables.markdown, filled), *sections]))
    texts = paper_tables.files(filled, folder, [kind.value for kind in formats or ()]) | whole
    write(texts)
    if texts:
        print(f"{len(texts)} file{'s' if len(texts) > 1 else ''} in {folder}")
    return 0


def _write_plan(target: Any, dataset: str, seeds: str, folder: Path, where: Places, drawn: Any) -> Path:
    """The plan of a study with the runs that a published table or figure lacks."""
    import yaml

    from gazebench.core.files import write_atomically
    from gazebench.report import paper_tables, published
    from gazebench.study import papers

    try:
        wanted = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise DataError(f"--seeds {seeds}: give whole numbers with commas between them") from None
    data = dataset or target.dataset
    if isinstance(target, published.PublishedTable):
        words = published.vocabulary()
        content = paper_tables.plan(paper_tables.fill(target, words, where.boards, dataset), words, data, wanted)
    else:
        content = papers.plan_of(target, drawn, data, wanted)
    if not content["rows"]:
        raise DataError(f"{target.id}: no row of this table is a method of this suite")
    path = folder / "plans" / f"{target.id}-{data}.yaml"
    write_atomically(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110))
    return path
