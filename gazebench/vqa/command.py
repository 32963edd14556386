"""``gazebench vqa``: builds questions, asks them, scores answers, writes the table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gazebench.core.errors import DataError
from gazebench.data.check import built
from gazebench.data.dataset import SPLITS, GazeDataset
from gazebench.engine.run import Places
from gazebench.engine.score import score as score_file
from gazebench.metrics.intervals import format_value
from gazebench.metrics.vocabulary import Vocabulary
from gazebench.vlm.messages import Decoding, VLMError
from gazebench.vlm.options import BACKENDS, Meter, add_model, backend, check_server, shard
from gazebench.vlm.pictures import Encoding
from gazebench.vlm.store import AnswerStore
from gazebench.vqa import asking, judge, scoring, sheet, table
from gazebench.vqa.answerers import FLOORS, Answerer, Examples, ModelAnswerer, floor
from gazebench.vqa.build import build
from gazebench.vqa.describe import Describer, described
from gazebench.vqa.files import read_card
from gazebench.vqa.interview import SEED, Words
from gazebench.vqa.protocols import rules

MODEL = "Qwen/Qwen3-VL-4B-Instruct"
FOLDER = "vqa"

DESCRIPTION = """\
Gaze as questions and answers (docs/vqa.md). `build` writes the questions about a split; `ask` has them answered and
scores the answers; `score` scores those there are; `table` writes models by tasks. Answers are kept as they arrive:
repeating a command that was stopped goes on where it was."""

EPILOGUE = """\
examples:
  gazebench vqa build gazeworld
  gazebench vqa ask runs/vqa/gazeworld/test.jsonl --backend majority
  gazebench vqa ask runs/vqa/gazeworld/test.jsonl --backend openai --model Qwen/Qwen3-VL-8B-Instruct --shots 3
  gazebench vqa table gazeworld"""


def parser() -> argparse.ArgumentParser:
    """The options; what begins with ``--dataset.`` goes to the dataset."""
    own = argparse.ArgumentParser(
        prog="gazebench vqa", description=DESCRIPTION, epilog=EPILOGUE, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    steps = own.add_subparsers(dest="step", required=True)
    making = steps.add_parser("build", help="questions about a dataset's splits", allow_abbrev=False)
    making.add_argument("dataset")
    making.add_argument("--split", action="append", default=[], choices=SPLITS, help="repeat for more (default: all)")
    making.add_argument("--out", type=Path, default=None, help="default: RUNS/vqa/DATASET")
    making.add_argument("--seed", type=int, default=SEED, help="another than the protocol's makes other questions")
    making.add_argument("--describe", choices=BACKENDS, help="a model names what people look at, where nobody did")
    add_model(making, MODEL, max_tokens=128)
    for name, help_ in (("ask", "have a file of questions answered, and score"), ("score", "score stored answers")):
        step = steps.add_parser(name, help=help_, allow_abbrev=False)
        step.add_argument("questions", type=Path)
        step.add_argument("--backend", default="openai", choices=(*BACKENDS, *FLOORS))
        step.add_argument("--title", default="", help="what tables call the model")
        step.add_argument("--shots", type=int, default=0, help="examples shown before each question")
        step.add_argument("--seed", type=int, default=0, help="of the examples")
        step.add_argument("--examples", type=Path, help="training questions (default: train.jsonl beside the others)")
        step.add_argument("--shard", default="", metavar="I/N", help="only this part; each goes to a file of its own")
        step.add_argument("--limit", type=int, default=0, help="only so many questions, to try it out")
        step.add_argument("--partial", action="store_true", help="score although questions are open; those are wrong")
        step.add_argument("--points", type=Path, help="also write the points as predictions for `gazebench score`")
        step.add_argument("--board", action="store_true", help="and score them: a row of the dataset's leaderboard")
        step.add_argument("--clip-weights", type=Path, help="of a CLIP that compares descriptions")
        step.add_argument("--clip-model", default="ViT-B-32-quickgelu")
        step.add_argument("--judge", choices=BACKENDS, help="a model judges descriptions")
        step.add_argument("--judge-model", default="", help="default: the model asked")
        step.add_argument("--judge-url", default="", help="default: the same server")
        add_model(step, MODEL, max_tokens=128)
    writing = steps.add_parser("table", help="models by tasks", allow_abbrev=False)
    writing.add_argument("dataset")
    return own


def main(arguments: Sequence[str], places: Places) -> int:
    """Runs a step; 1 when questions are left without an answer."""
    given, options = parser().parse_known_args(list(arguments))
    foreign = [word for word in options if not word.startswith("--dataset.")]
    if foreign:
        raise DataError(f"gazebench vqa: {' '.join(foreign)} makes no sense here; --help lists the options")
    try:
        if given.step == "build":
            return _build(given, built(given.dataset, options), places)
        if given.step == "table":
            return _table(built(given.dataset, options), places)
        return _ask(given, options, places)
    except VLMError as error:
        raise DataError(str(error)) from error


def _build(given: argparse.Namespace, dataset: GazeDataset, places: Places) -> int:
    folder = given.out or places.runs / FOLDER / dataset.card.name
    for split in given.split or ("train", "val", "test"):
        words: Words | None = None
        identity: dict[str, Any] | None = None
        records = dataset.records(split)
        if not records.people:
            print(f"{split}: nobody is in it")
            continue
        if given.describe:
            asked = backend(given.describe, given)
            decoding = Decoding(max_tokens=given.max_tokens, temperature=given.temperature)
            describer = Describer(asked, Encoding(max_side=given.max_side), decoding)
            identity = describer.identity()
            store = AnswerStore(folder / "descriptions", "describer", identity)
            check_server(asked)
            meter = Meter("descriptions")
            try:
                failed = describer.ask(dataset, records, store, meter)
            finally:
                meter.close()
            if failed:
                return _open(failed, "descriptions")
            words = described(dataset, records, store)
        path, card = build(dataset, split, folder, seed=given.seed, words=words, describer=identity)
        page = sheet.page(path, dataset, card)
        counts = card["counts"]
        print(f"{split}: {counts['questions']:,} questions about {counts['people']:,} people in {counts['images']:,} "
              f"pictures: {', '.join(f'{count:,} {task}' for task, count in counts['task'].items())}")  # fmt: skip
        print(f"questions {path}\npage      {page}")
    return 0


def _table(dataset: GazeDataset, places: Places) -> int:
    place, text = table.refresh(places.boards / FOLDER, places.boards, dataset.card.name, dataset.card.title)
    print(f"{text}\npage {place}")
    return 0


def _ask(given: argparse.Namespace, options: Sequence[str], places: Places) -> int:
    card = read_card(given.questions)
    rules(card)  # before anything is asked
    dataset = built(str(card["dataset"]), options)
    answerer = _answerer(given, card, dataset)
    store = asking.store_of(places.runs / FOLDER, answerer, card)
    code = 0
    if given.step == "ask":
        if isinstance(answerer, ModelAnswerer):
            check_server(answerer.backend)
        meter = Meter("questions")
        try:
            outcome = asking.ask(
                given.questions, card, answerer, store, shard(given.shard), given.limit, meter
            )  # fmt: skip
        finally:
            meter.close()
        print(f"{outcome.answered:,} answers came, kept in {store.folder}")
        if outcome.open:
            code = _open(outcome.open, "questions")
    if given.shard and given.step == "ask":
        print("this was one shard; when all are answered: the same command with score instead of ask")
        return code
    if given.limit and given.step == "ask" and not given.partial:
        print("this was a trial; without --limit the others are asked, and the answers are scored")
        return code
    if code and not given.partial:
        return code
    return max(code, _score(given, options, card, answerer, store, places, dataset))


def _open(failed: Any, what: str) -> int:
    key, reason = next(iter(failed.items()))
    print(f"{len(failed):,} {what} have no answer, e.g. {key}: {reason}", file=sys.stderr)
    print("repeat the command to ask for them", file=sys.stderr)
    return 1


def _answerer(given: argparse.Namespace, card: dict[str, Any], dataset: GazeDataset) -> Answerer:
    train = given.examples or given.questions.with_name("train.jsonl")
    if given.backend in FLOORS:
        return floor(given.backend, given.questions, train)
    split = str(card["split"])
    if dataset.records(split).fingerprint() != card["fingerprint"]:
        raise DataError(
            f"{given.questions}: built from other annotations of {card['dataset']}/{split} than these; build the "
            "questions anew, or give the same --dataset options"
        )
    examples = Examples(train, dataset, given.shots, given.seed) if given.shots else None
    return ModelAnswerer(
        backend(given.backend, given), dataset, dataset.records(split), examples, Encoding(max_side=given.max_side),
        Decoding(max_tokens=given.max_tokens, temperature=given.temperature), given.title,
        rules(card),
    )  # fmt: skip


def _score(
    given: argparse.Namespace, options: Sequence[str], card: dict[str, Any], answerer: Answerer, store: AnswerStore,
    places: Places, dataset: GazeDataset,
) -> int:  # fmt: skip
    answered = scoring.collect(given.questions, card, answerer, store)
    if answered.open and not given.partial:
        raise DataError(
            f"{answered.open:,} of {len(answered.rows):,} questions have no answer in {store.folder}; ask for them "
            "(the same command with ask), or add --partial, which counts them as wrong"
        )
    further: dict[str, Any] = {}
    similarity = None
    if given.clip_weights:
        clip = Vocabulary(None, given.clip_model, given.clip_weights)
        similarity, further["similarity"] = clip.similarity, clip.describe()
    judged = None
    if given.judge:
        judged, further["judge"] = _judged(given, card, answered, store, places)
    values = scoring.measure(answered, similarity, judged, by=rules(card))
    record = scoring.result(card, answerer, store, answered, values, further)
    path = scoring.write(places.boards / FOLDER, record, store)
    print(f"\n{answerer.title} ({answerer.mode}) on {card['dataset']}/{card['split']}, {card['protocol']} (ours)\n")
    for name, value in values.items():
        span = f"{format_value(value.low)} to {format_value(value.high)}"
        print(f"  {name:<24}{format_value(value.value)}  ({span}; {value.count:,} questions)")
    for reason in record["status"]["reasons"]:
        print(f"  - not a full result: {reason}")
    print(f"\nresult    {path}")
    if given.points or given.board:
        place = given.points or store.folder / f"{card['split']}-points.csv"
        people = scoring.write_points(place, answered)
        print(f"points    {place} ({people:,} people)")
        if given.board:
            name = f"--title={answerer.title}, {answerer.mode}"
            _, row = score_file(place, card["dataset"], [*options, name, f"--split={card['split']}"], places)
            print(f"record    {row}")
    return 0


def _judged(
    given: argparse.Namespace, card: dict[str, Any], answered: scoring.Answered, store: AnswerStore, places: Places
) -> tuple[dict[str, bool], dict[str, Any]]:
    settings = {"model": given.judge_model or given.model, "url": given.judge_url or given.url}
    asked = backend(given.judge, argparse.Namespace(**{**vars(given), **settings}))
    check_server(asked)
    identity = judge.identity(asked, store.digest(str(card["split"])))
    folder = AnswerStore(places.runs / FOLDER / str(card["dataset"]) / "verdicts", "judge", identity)
    verdicts, open_ = judge.judge(asked, answered, folder, str(card["split"]))
    if open_:
        raise DataError(f"{open_:,} descriptions have no verdict; repeat the command to ask for them")
    return verdicts, {key: identity[key] for key in ("model", "backend") if key in identity}
