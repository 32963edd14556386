"""``gazebench vqa build|ask|score|table``: gaze as questions and answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gazebench.cli.model_options import model_options, print_open, print_siblings
from gazebench.cli.options import BoardsOption, NameArgument, RunsOption, command, given_settings, places
from gazebench.vlm.options import BackendName, ModelOptions, check_server
from gazebench.vlm.options import shard as parse_shard

FOLDER = "vqa"
AnswererName = Literal[
    "openai", "transformers", "oracle", "shuffled", "random", "majority", "text-only", "picture-only"
]
with_model = model_options("Qwen/Qwen3-VL-4B-Instruct", max_tokens=128)


app = typer.Typer(
    name="vqa",
    help="Questions about gaze: build, ask, score (docs/vqa.md).",
    epilog="Example: gazebench vqa build gazeworld",
    no_args_is_help=True,
)


@command(app, "build", "gazebench vqa build gazefollow --dataset.root DIR --describe openai", settings=True)
@with_model
def build(
    ctx: typer.Context,
    dataset: NameArgument,
    options: ModelOptions,
    split: Annotated[list[str] | None, typer.Option(help="Repeat for more; train, val, test by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the questions; RUNS/vqa/DATASET by default.")] = None,
    describe: Annotated[BackendName | None, typer.Option(help="A model describes targets without a name.")] = None,
    protocol: Annotated[str, typer.Option(help="Of the questions; the newest by default.")] = "gazebench-vqa-v2",
    all_pairs: Annotated[
        bool, typer.Option("--all-pairs", help="Ask about all pairs of people, yes or no, and nothing else.")
    ] = False,
    runs: RunsOption = None,
) -> int:
    """Build the questions about the splits of a data set.

    For each split the command writes a file of questions with its card, a page of statistics and a contact sheet. The
    options of the model are for --describe only.
    """
    from gazebench.engine.config import dataset_with
    from gazebench.vlm.store import AnswerStore
    from gazebench.vqa.build import build as run
    from gazebench.vqa.describe import Describer, described
    from gazebench.vqa.sheet import page

    data = dataset_with(dataset, given_settings(ctx))
    folder = out or places(runs, None).runs / FOLDER / data.card.name
    for name in split or ("train", "val", "test"):
        records = data.records(name)
        if not records.people:
            print(f"{name}: nobody is in it")
            continue
        descriptions, identity = None, None
        if describe:
            backend = options.backend(describe)
            check_server(backend)
            describer = Describer(backend, options.encoding(), options.decoding())
            identity = describer.identity()
            store = AnswerStore(folder / "descriptions", "describer", identity)
            outcome = describer.ask(data, records, store)
            if print_open(outcome, "descriptions"):
                return 1
            descriptions = described(data, records, store)
        path, card = run(
            data, name, folder, descriptions=descriptions, describer=identity, protocol=protocol, all_pairs=all_pairs
        )
        counts = card["counts"]
        types = ", ".join(f"{number:,} {task}" for task, number in counts["task"].items())
        print(f"{name}: {counts['questions']:,} questions about {counts['people']:,} people in "
              f"{counts['images']:,} images: {types}")  # fmt: skip
        print(f"questions {path}\npage      {page(path, data, card)}")
    return 0


@with_model
def answers(
    ctx: typer.Context,
    questions: Annotated[Path, typer.Argument(help="A file of questions that `gazebench vqa build` made.")],
    options: ModelOptions,
    backend: Annotated[AnswererName, typer.Option(help="A model, or a baseline without one.")] = "openai",
    title: Annotated[str, typer.Option(help="Name in tables; the model's by default.")] = "",
    shots: Annotated[int, typer.Option(min=0, help="Examples shown before each question.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the examples.")] = 0,
    examples: Annotated[Path | None, typer.Option(help="Training questions; train.jsonl by default.")] = None,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Ask only this part, into a file of its own.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="Ask only so many questions, to try it out.")] = 0,
    partial: Annotated[bool, typer.Option("--partial", help="Score open questions as wrong.")] = False,
    points: Annotated[
        Path | None,
        typer.Option(help="Write points or pairs' scores as predictions for `gazebench score`."),
    ] = None,
    board: Annotated[bool, typer.Option("--board", help="Score that file: a row of the leaderboard.")] = False,
    clip_weights: Annotated[Path | None, typer.Option(help="Weights of a CLIP that compares descriptions.")] = None,
    clip_model: Annotated[str, typer.Option(help="Name of that CLIP in open_clip.")] = "ViT-B-32-quickgelu",
    judge: Annotated[BackendName | None, typer.Option(help="A model judges descriptions.")] = None,
    judge_model: Annotated[str, typer.Option(help="The judge; by default the model that is asked.")] = "",
    judge_url: Annotated[str, typer.Option(help="The judge's server; by default that of the model asked.")] = "",
    runs: RunsOption = None,
    boards: BoardsOption = None,
) -> int:
    from gazebench.engine.config import dataset_with
    from gazebench.metrics.vocabulary import Vocabulary
    from gazebench.vqa import scoring
    from gazebench.vqa.answerers import Answerer, Examples, ModelAnswerer
    from gazebench.vqa.asking import ask, collect, store_of
    from gazebench.vqa.blind import BASELINES
    from gazebench.vqa.files import check_annotations, read_card
    from gazebench.vqa.judge import judge as ask_judge
    from gazebench.vqa.protocols import protocol_of

    where, card, asks = places(runs, boards), read_card(questions), ctx.info_name == "ask"
    protocol, folder, split = protocol_of(card), where.runs / FOLDER, str(card["split"])
    data = dataset_with(str(card["dataset"]), given_settings(ctx))
    check_annotations(questions, card, data)
    train = examples or questions.with_name("train.jsonl")
    answerer: Answerer
    if backend in BASELINES:
        answerer = BASELINES[backend](questions, train, data, split)
    else:
        model, shown = options.backend(backend), Examples(train, data, shots, seed) if shots else None
        answerer = ModelAnswerer(
            model, data, data.records(split), shown, options.encoding(), options.decoding(), title,
            protocol.instructions, options.coordinates, structured=options.structured and backend == "openai",
        )  # fmt: skip
        if asks:
            check_server(model)
    store, code = store_of(folder, answerer, card), 0
    print_siblings(store)
    if asks:
        outcome = ask(questions, card, answerer, store, parse_shard(shard), limit)
        print(f"{outcome.answered:,} answers came, kept in {store.folder}")
        code = print_open(outcome, "questions")
        if shard:
            print("this was one shard; when all are answered: the same command with score instead of ask")
        elif limit and not partial:
            print("this was a trial; without --limit the others are asked, and the answers are scored")
        if shard or (not partial and (limit or code)):
            return code
    answered = collect(questions, card, answerer, store, partial=partial)
    further: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    if clip_weights:
        fields["vocabulary"] = Vocabulary(None, clip_model, clip_weights)
        further["similarity"] = fields["vocabulary"].describe()
    if judge:
        options = replace(options, model=judge_model or options.model, url=judge_url or options.url)
        check_server(by := options.backend(judge))
        verdicts = folder / data.card.name / "verdicts"
        fields["judged"], further["judge"] = ask_judge(by, answered, verdicts, store, split)
    scores = scoring.measure(answered, card, data, **fields)
    further["reading"] = scoring.reading(answered, card, answerer)
    record = scoring.make(data, card, answerer, store, answered, scores, further)
    _print_scores(record, answerer.mode, card["protocol"])
    print(f"  {scoring.other_coordinates(further['reading'])}")
    print(f"\nresult    {scoring.write(where.boards / FOLDER, record)}")
    print(f"reading   {scoring.write_reading(store.folder / f'{split}-read.csv', answered, further['reading'])}")
    if points or board:
        if card.get("all_pairs"):
            place = points or store.folder / f"{split}-pairs.jsonl"
            written = scoring.write_pairs(place, answered, data, card)
        else:
            place = points or store.folder / f"{split}-points.csv"
            written = scoring.write_points(place, answered)
        print(f"file      {place} ({written:,} people)")
        if board:
            from gazebench.engine.record import write_record
            from gazebench.engine.score import score as score_file
            from gazebench.report.board import refresh

            row = score_file(place, data, split=split, title=f"{answerer.title}, {answerer.mode}")
            print(f"record    {write_record(row, where.boards)}")
            refresh(where.boards, row["dataset"], type(data))
    return code


example = 'gazebench vqa {} runs/vqa/gazeworld/test.jsonl --model Qwen/Qwen3-VL-8B-Instruct --title "Qwen3 8B"'
for step, text in {
    "ask": "Ask a model questions, and score its answers.\n\nAnswers are stored as they arrive: a command that was "
    "stopped asks only the open questions when it is repeated. The exit code is 1 while questions are open.",
    "score": "Score the stored answers; the options are those of `ask`.",
}.items():
    command(app, step, example.format(step), settings=True, help=text)(answers)


@command(app, "table", "gazebench vqa table gazeworld")
def table(dataset: NameArgument, boards: BoardsOption = None) -> None:
    """Write the table of models by question types."""
    from gazebench.engine.registry import load_dataset
    from gazebench.vqa.table import refresh

    where, card = places(None, boards), load_dataset(dataset).card
    path, text = refresh(where.boards / FOLDER, where.boards, card.name, card.title)
    print(f"{text}\npage {path}")


def _print_scores(record: Mapping[str, Any], mode: str, protocol: str) -> None:
    from gazebench.metrics.intervals import format_value

    data = record["data"]
    print(f"\n{record['method']['title']} ({mode}) on {data['name']}/{data['split']}, {protocol} (ours)\n")
    for name, subsets in record["metrics"].items():
        score = subsets["all"]
        span = " to ".join(format_value(score.get(end)) for end in ("low", "high"))
        print(f"  {name:<24}{format_value(score['value'])}  ({span}; {score['count']:,} questions)")
    for reason in record["status"]["reasons"]:
        print(f"  - not a full result: {reason}")
