"""``gazebench probe``: asks a prober, builds a split from its answers, and audits the split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gazebench.cli.model_options import model_options, print_open, print_siblings
from gazebench.cli.options import NameArgument, RunsOption, SplitOption, command, given_settings, places
from gazebench.vlm.options import ModelOptions, check_server
from gazebench.vlm.options import shard as parse_shard

if TYPE_CHECKING:
    from gazebench.probe.probers import Prober

ProberName = Literal["openai", "transformers", "oracle", "saliency"]


app = typer.Typer()


@command(
    app,
    "probe",
    "gazebench probe gazefollow --dataset.root DIR --model Qwen/Qwen3-VL-8B-Instruct --url http://localhost:8000/v1",
    settings=True,
)
@model_options("Qwen/Qwen3-VL-32B-Instruct")
def probe(
    ctx: typer.Context,
    dataset: NameArgument,
    options: ModelOptions,
    split: SplitOption = "test",
    prober: Annotated[
        ProberName, typer.Option(help="A model behind a server or in this process, or a prober without a model.")
    ] = "openai",
    name: Annotated[str, typer.Option(help="Name of the new split; the model's by default.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder of splits; `splits` of the checkout by default.")] = None,
    runs: RunsOption = None,
    build: Annotated[bool, typer.Option("--build", help="Only build the split of the stored answers.")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="Build although somebody has no answer.")] = False,
    audit: Annotated[
        bool, typer.Option("--audit", help="Only look at the stored answers: sample sheets and figures.")
    ] = False,
    against: Annotated[
        list[str] | None, typer.Option(metavar="SPLIT", help="Of --audit: a split to compare with; repeat for more.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print how much there is to ask.")] = False,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Ask only this part, into a file of its own.")] = "",
    stride: Annotated[
        int, typer.Option(help="Video: ask about every n-th frame of a person, for its neighbours too.")
    ] = 1,
    limit: Annotated[int, typer.Option(help="Ask about so many people only, to try it out.")] = 0,
    prompt: Annotated[str, typer.Option(help="An entry of gazebench/probe/prompts.yaml.")] = "regions-1",
    attempts: Annotated[int, typer.Option(help="Attempts to get a usable answer about a person.")] = 3,
) -> int:
    """Ask a prober which regions attract people, and build a split from the answers.

    The prober names the regions of the image that are likely to attract a person by scene context alone; they decide
    who is consistent and who inconsistent (docs/splits.md). Answers are stored in RUNS/probes as they arrive: a command
    that was stopped continues when it is repeated. With --shard, run the command once more with --build when all parts
    are answered. The default model is the paper's.
    """
    from gazebench.engine.config import dataset_with
    from gazebench.engine.record import CHECKOUT
    from gazebench.probe import asking
    from gazebench.probe import audit as auditing
    from gazebench.probe import build as building
    from gazebench.vlm.store import AnswerStore

    data, part = dataset_with(dataset, given_settings(ctx)), parse_shard(shard)
    asked = _prober(prober, options, prompt, attempts, name)
    records, folder = data.records(split), places(runs, None).runs / "probes" / data.card.name
    store = AnswerStore(folder, asked.name, asked.identity())
    found = asking.Probe(data, records, asked, store, stride)
    if audit:
        path = auditing.audit(folder / f"audit-{asked.name}-{split}", found, against or ())
        print(path.read_text(encoding="utf-8").split("## The rule")[0])
        print(f"page {path}")
        return 0
    code = 0
    if not build:
        print(f"{records.dataset}/{split}: {records.people:,} people, {len(found.asked):,} to ask {asked.name} "
              f"about; {len(store.answers(split)):,} have answers in {store.folder}")  # fmt: skip
        print_siblings(store)
        if dry_run:
            return 0
        check_server(getattr(asked, "backend", None))
        outcome = asking.ask(found, shard=part, limit=limit, progress="people")
        print(f"{outcome.answered:,} answers came; {outcome.unusable:,} people have unusable answers only")
        code = print_open(outcome, "people", "; --partial builds the split without them")
    if part:
        print("this was one shard; when all are answered: the same command with --build instead of --shard")
    elif limit and not partial:
        print("this was a trial; without --limit the others are asked about, and the split is built")
    elif not code or partial:
        folder = out or (CHECKOUT / "splits" if CHECKOUT else Path("splits"))
        path, card = building.write(folder / data.card.name / asked.name, found, partial=partial)
        counts, share = card["counts"], card["share_consistent"]
        percent = "-" if share is None else f"{100 * share:.1f}%"
        print(f"{counts['consistent']:,} consistent, {counts['inconsistent']:,} inconsistent "
              f"({percent} consistent)")  # fmt: skip
        print(", ".join(f"{counts[why]:,} {why}" for why in building.WITHOUT_VERDICT))
        print(f"split     {path}\ncard      {path.with_suffix('.json')}")
    return code


def _prober(kind: ProberName, options: ModelOptions, prompt: str, attempts: int, name: str) -> Prober:
    from gazebench.probe import probers

    if kind == "oracle":
        return probers.Oracle()
    if kind == "saliency":
        return probers.SpectralResidual()
    asked = probers.prompt(prompt)
    return probers.ModelProber(
        options.backend(kind), asked, options.encoding(), options.decoding(), attempts, name, options.coordinates,
        options.structured and kind == "openai",
    )  # fmt: skip
