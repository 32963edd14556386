"""``gazebench probe``: asks, builds the split, audits it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gazebench.core.errors import DataError
from gazebench.core.types import Records
from gazebench.data import saliency_splits as subsets
from gazebench.data.check import built
from gazebench.data.dataset import SPLITS, GazeDataset
from gazebench.engine import record as results
from gazebench.probe import asking, audit, build
from gazebench.probe.probers import ModelProber, Oracle, Prober, SpectralResidual, prompt
from gazebench.vlm.encoding import Encoding
from gazebench.vlm.messages import Decoding, VLMError
from gazebench.vlm.options import BACKENDS, Meter, add_model, backend, check_server, shard
from gazebench.vlm.store import AnswerStore

SPLITS_FOLDER = results.CHECKOUT / "splits" if results.CHECKOUT else Path("splits")

NAMED = 20
"""Unreadable pictures that are named one by one."""

DESCRIPTION = """\
Asks a prober, for every person of a split, which regions of the picture are likely to attract that person by scene
context alone, and makes of the answers who is consistent and who inconsistent (docs/splits.md). Answers are kept as
they arrive: repeating a command that was stopped goes on where it was."""

EPILOGUE = """\
examples:
  gazebench probe gazeworld --prober oracle
  gazebench probe gazefollow --dataset.root=DIR --prober openai --model Qwen/Qwen3-VL-32B-Instruct \\
    --url http://localhost:8000/v1 --in-flight 128
  gazebench probe vat --dataset.root=DIR ... --shard 3/16      one of sixteen processes or machines; then, once,
  gazebench probe vat --dataset.root=DIR ... --build           with all their answers in one folder
  gazebench probe gazeworld --prober saliency --audit --against oracle"""


def parser() -> argparse.ArgumentParser:
    """The options; what begins with ``--dataset.`` goes to the dataset."""
    own = argparse.ArgumentParser(
        prog="gazebench probe", description=DESCRIPTION, epilog=EPILOGUE, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    own.add_argument("dataset")
    own.add_argument("--split", default="test", choices=SPLITS)
    own.add_argument("--prober", default="openai", choices=(*BACKENDS, "oracle", "saliency"))
    own.add_argument("--name", default="", help="of the split; the model's by default")
    own.add_argument("--out", type=Path, default=SPLITS_FOLDER, help="folder of splits (default: %(default)s)")
    own.add_argument("--runs", type=Path, default=Path("runs"), help="raw answers are kept in RUNS/probes")
    steps = own.add_argument_group("steps (by default: ask, then build)")
    steps.add_argument("--build", action="store_true", help="only build the split of the answers there are")
    steps.add_argument("--partial", action="store_true", help="build although somebody has no answer")
    steps.add_argument("--audit", action="store_true", help="only look at the answers there are: sheets and figures")
    steps.add_argument("--against", action="append", default=[], metavar="SPLIT", help="a split to compare with")
    steps.add_argument("--dry-run", action="store_true", help="only say how much there is to ask")
    who = own.add_argument_group("who is asked about")
    who.add_argument("--shard", default="", metavar="I/N", help="only this part; each goes to a file of its own")
    who.add_argument("--stride", type=int, default=1, help="video: every n-th appearance; neighbours take its regions")
    who.add_argument("--limit", type=int, default=0, help="only so many people, to try it out")
    model = add_model(own, "Qwen/Qwen3-VL-32B-Instruct", ", the paper's")
    model.add_argument("--prompt", default="regions-1")
    model.add_argument("--attempts", type=int, default=3, help="how often an answer of no use is asked for in all")
    return own


def main(arguments: Sequence[str]) -> int:
    """Runs the command; 1 when somebody is left without an answer."""
    given, options = parser().parse_known_args(list(arguments))
    foreign = [word for word in options if not word.startswith("--dataset.")]
    if foreign:
        raise DataError(f"gazebench probe: {' '.join(foreign)} makes no sense here; --help lists the options")
    dataset = built(given.dataset, options)
    records = dataset.records(given.split)
    try:
        prober = _prober(given)
        store = AnswerStore(given.runs / "probes" / given.dataset, prober.name, prober.identity())
        who = asking.plan(records, given.stride)
        code = 0
        if given.audit:
            return _audit(given, dataset, records, prober, store, who)
        if not given.build:
            _announce(given, prober, store, who)
            if given.dry_run:
                return 0
            code = _ask(given, dataset, records, prober, store, who)
    except VLMError as error:
        raise DataError(str(error)) from error
    if given.shard:
        print("this was one shard; when all are answered: the same command with --build instead of --shard")
    elif given.limit and not given.partial:
        print("this was a trial; without --limit the others are asked about, and the split is built")
    elif not code or given.partial:
        path, card = build.write(
            given.out / given.dataset / prober.name, dataset, records, prober, store, who, partial=given.partial
        )
        _show(path, card)
    return code


def _prober(given: argparse.Namespace) -> Prober:
    if given.prober == "oracle":
        return Oracle()
    if given.prober == "saliency":
        return SpectralResidual()
    decoding = Decoding(max_tokens=given.max_tokens, temperature=given.temperature)
    encoding = Encoding(max_side=given.max_side)
    return ModelProber(
        backend(given.prober, given), prompt(given.prompt), encoding, decoding, given.attempts, given.name
    )


def _announce(given: argparse.Namespace, prober: Prober, store: AnswerStore, who: asking.Plan) -> None:
    known = len(store.answers(given.split))
    print(f"{given.dataset}/{given.split}: {len(who.source):,} people, {len(who.asked):,} to ask {prober.name} about; "
          f"{known:,} have answers in {store.folder}")  # fmt: skip
    for sibling in store.other_identities():
        print(f"  {sibling.answers:,} answers of another identity stay in {sibling.folder.name}: {sibling.differs}")


def _ask(
    given: argparse.Namespace, dataset: GazeDataset, records: Records, prober: Prober, store: AnswerStore,
    who: asking.Plan,
) -> int:  # fmt: skip
    if isinstance(prober, ModelProber):
        check_server(prober.backend)
    meter = Meter()
    try:
        outcome = asking.ask(
            dataset, records, prober, store, who, shard=shard(given.shard), limit=given.limit, progress=meter
        )
    finally:
        meter.close()
    print(f"{outcome.answered:,} answers came; {outcome.unusable:,} people have nothing but answers of no use")
    if outcome.open:
        key, reason = next(iter(outcome.open.items()))
        print(f"{len(outcome.open):,} people have no answer, e.g. {key}: {reason}", file=sys.stderr)
        for reason in outcome.unreadable[:NAMED]:
            print(f"  {reason}", file=sys.stderr)
        if len(outcome.unreadable) > NAMED:
            print(f"  and {len(outcome.unreadable) - NAMED:,} more pictures that cannot be read", file=sys.stderr)
        print("repeat the command to ask about them; --partial builds the split without them", file=sys.stderr)
        return 1
    return 0


def _audit(
    given: argparse.Namespace, dataset: GazeDataset, records: Records, prober: Prober, store: AnswerStore,
    who: asking.Plan,
) -> int:  # fmt: skip
    found = build.verdicts(dataset, records, prober, store, who)
    if all(one.origin == build.UNANSWERED for one in found):
        raise DataError(f"nobody of {given.dataset}/{given.split} has an answer in {store.folder}; ask first")
    others: dict[str, dict[str, str]] = {}
    truth = {str(p): str(s) for p, s in zip(records.person_id, records.columns.get("subset", []), strict=False)}
    if any(truth.values()):
        others[f"the subsets {dataset.card.title} comes with"] = truth
    for name in given.against:
        place = subsets.locate(Path(name), given.dataset, given.split)
        if place is None:
            raise DataError(f"--against {name}: it has nothing for {given.split}")
        others[name] = {person: row[0] for person, row in subsets.read(place).rows.items()}
    folder = given.runs / "probes" / given.dataset / f"audit-{prober.name}-{given.split}"
    card = build.describe(dataset, records, prober, store, who, found)
    title = f"{prober.name} on {dataset.card.title}, {given.split}"
    path = audit.page(folder, title, dataset, records, found, card, others)
    print(path.read_text(encoding="utf-8").split("## The rule")[0])
    print(f"page {path}")
    return 0


def _show(path: Path, card: dict[str, Any]) -> None:
    counts = card["counts"]
    share = "-" if card["share_consistent"] is None else f"{100 * card['share_consistent']:.1f}%"
    print(f"{counts['consistent']:,} consistent, {counts['inconsistent']:,} inconsistent ({share} consistent)")
    print(", ".join(f"{counts[name]:,} {name}" for name in ("unparsed", "unanswered", "no_head_box", "out_of_frame")))
    print(f"split     {path}\ncard      {path.with_suffix('.json')}")
