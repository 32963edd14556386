"""Boards and run pages: their numbers are the records', seeds are means, nothing passes for what it is not."""

import hashlib
import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from gazebench.cli.main import main
from gazebench.engine.contract import small_config
from gazebench.engine.record import INTERVALS, read_files, write_record
from gazebench.engine.registry import load_dataset, load_method, usable
from gazebench.engine.run import BOARDS, Places, bench
from gazebench.metrics.intervals import interval
from gazebench.metrics.protocol import SUBSETS, TASKS
from gazebench.report import board, published, run_page, site
from gazebench.report.board_rows import COSTS, group_runs, make_board
from gazebench.report.page import ASSETS, stale
from gazebench.report.run import show
from gazebench.report.run_data import metric_uses, people

WORLD = load_dataset("gazeworld")
BASE = json.loads(next((BOARDS / "gazeworld").glob("hclora-1ec*.json")).read_text(encoding="utf-8"))


TIMED = {
    "ms_per_person": 12.5, "repeats": 9, "batch": 8, "people_per_image": 2.5, "precision": "float32",
    "accelerator": "cpu", "device": "a processor", "threads": 2,
}  # fmt: skip


def made(run, value, *, seed=0, status="synthetic", title="HCLoRA", finished="2026-01-01T00:00:00+00:00", **config):
    """A record like a committed one, with an interval."""
    record = json.loads(json.dumps(BASE))
    record |= {"run": run, "seed": seed, "finished": finished}
    record["method"]["title"] = title
    record["status"] = {"class": status, "reasons": ["because"] if status == "smoke" else []}
    record["config"]["model"] |= config
    record["config"]["seed"] = seed
    record["inference"] = TIMED
    score = {"value": value, "count": 9, "low": value - 0.01, "high": value + 0.02, "sources": 4}
    record["metrics"]["avg_l2"] = {"all": score, "inconsistent": {"value": 2 * value, "count": 3}}
    return record


def built(folder, *records):
    """The board of these records: Markdown, CSV and pages, all in one folder."""
    for record in records:
        write_record(record, folder)
    board.refresh(folder, "gazeworld", WORLD)
    site.build(folder, folder)
    return folder


class Tables(HTMLParser):
    """The tables of a board: by dataset, the names of columns, and a dict of sort values a row."""

    def __init__(self, text):
        super().__init__()
        self.boards, self.cell, self.rows, self.names = {}, None, [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "section" and given.get("class") == "board":
            self.rows, self.names = [], []
            self.boards[given["data-name"]] = self.rows
        elif tag == "th" and "data-name" in given:
            self.names.append(given["data-name"])
        elif tag == "tr" and "data-kind" in given:
            self.rows.append({"kind": given["data-kind"], "family": given["data-family"], "text": ""})
            self.cell = iter(self.names)
        elif tag in ("td", "th") and "data-order" in given and self.rows:
            self.rows[-1][next(self.cell)] = given["data-order"]

    def handle_data(self, data):
        if self.rows:
            self.rows[-1]["text"] += data


def rows(folder, dataset="gazeworld"):
    return Tables((folder / "index.html").read_text(encoding="utf-8")).boards[dataset]


def test_the_numbers_are_the_records(tmp_path):
    records = [made("a1", 0.2), made("b2", 0.1, title="Other", status="smoke"), made("c3", 0.3, title="Third")]
    shown = {row["method"]: row for row in rows(built(tmp_path, *records))}
    for record in records:
        row = shown[record["method"]["title"]]
        assert row["kind"] == record["status"]["class"]
        for metric, subsets in record["metrics"].items():
            for subset, score in subsets.items():
                assert float(row[f"{metric}/{subset}"]) == score["value"]
        assert row.keys().isdisjoint({"avg_l2/consistent", "ap/consistent"}), "nobody has one"
        assert float(row["people"]) == record["samples"]["people"]
        assert float(row["trained"]) == record["parameters"]["trained"]
        assert float(row["inference"]) == 12.5
        assert float(row["memory"]) == record["peak_memory_bytes"]["process"] / 2**30
        low, high = record["metrics"]["avg_l2"]["all"]["low"], record["metrics"]["avg_l2"]["all"]["high"]
        assert f"{low:.4f} to {high:.4f}" in row["text"]
    classes = [list(site.SECTIONS)[int(row["group"])] for row in rows(tmp_path)]
    assert classes == ["synthetic", "synthetic", "smoke"], "the best value, of a smoke run, stands last"
    assert "| 0.2000 (0.1900 to 0.2200) " in (tmp_path / "gazeworld" / "README.md").read_text(encoding="utf-8")
    frame = pd.read_csv(tmp_path / "gazeworld" / "leaderboard.csv").set_index("run")
    assert frame.loc["a1", ["avg_l2", "avg_l2 low", "avg_l2 high"]].tolist() == pytest.approx([0.2, 0.19, 0.22])
    text = (tmp_path / "gazeworld" / "hclora-a1.html").read_text(encoding="utf-8")
    shown = ["0.1900 to 0.2200", "9 of 4 sources", BASE["data"]["fingerprint"], BASE["config"]["model"]["backbone"]]
    assert all(value in text for value in [*shown, *(f"<code>{name}</code>" for name in BASE["config"]["provenance"])])


def test_the_plot_has_the_same_numbers(tmp_path):
    records = [made(f"a{seed}", 0.2 + seed / 10, seed=seed) for seed in range(3)]
    text = (built(tmp_path, *records) / "index.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL).group(1))["gazeworld"]
    (row,), expected = data["rows"], interval([0.2, 0.3, 0.4])
    assert row["values"]["avg_l2"]["all"] == pytest.approx([expected.mean, expected.low, expected.high])
    assert row["costs"].keys() == {cost.key for cost in COSTS}
    assert row["costs"]["inference"] == 12.5
    assert all(said in row["timing"] for said in ("a processor", "float32", "batch of 8", "2.5 people"))
    assert data["metrics"]["avg_l2"] == {"higher": False, "digits": 4}
    assert (tmp_path / row["href"]).is_file()


def test_seeds_of_one_configuration_are_one_row(tmp_path):
    found = built(
        tmp_path, made("s0", 0.2), made("s1", 0.3, seed=1), made("s2", 0.4, seed=2, finished="2026-01-02"),
        made("old", 0.9, seed=1, finished="2025-01-01"), made("rank", 0.5, rank=4),
        made("smoke", 0.2, seed=3, status="smoke"),
    )  # fmt: skip
    stored = {path.stem: json.loads(path.read_text()) for path in found.glob("*/*.json")}
    assert {tuple(group.runs) for group in group_runs(stored)} == {("s0", "s1", "s2"), ("old",), ("rank",), ("smoke",)}
    row = next(row for row in rows(found) if float(row["seeds"]) == 3)
    expected = interval([0.2, 0.3, 0.4])
    assert float(row["avg_l2/all"]) == pytest.approx(expected.mean)
    assert f"± {expected.half:.4f}" in row["text"]
    line = next(
        line for line in (found / "gazeworld" / "README.md").read_text().splitlines() if "mean of 0, 1, 2 " in line
    )
    assert f"{expected.mean:.4f} ± {expected.half:.4f}" in line
    page = (found / "gazeworld" / "hclora-s0.html").read_text(encoding="utf-8")
    assert 'href="hclora-s1.html">seed 1' in page
    assert "hclora-old.html" not in page


def scored(record, **metrics):
    """The same record with these metrics."""
    record["metrics"] = {name: {"all": {"value": value, "count": 9}} for name, value in metrics.items()}
    return record


def cells(folder, heading):
    """The rows of the first table below a heading of a board in Markdown: by column, what stands there."""
    text = (folder / "gazeworld" / "README.md").read_text(encoding="utf-8")
    lines = text.partition(f"## {heading}\n")[2].partition("\n|")[2].partition("\n\n")[0].splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip((name.split()[0] for name in table[0]), row, strict=True)) for row in table[2:]]


def test_a_mean_is_over_exactly_its_seeds(tmp_path):
    both, some = {"avg_l2": 0.2, "auc": 0.9}, {"avg_l2": 0.4}
    built(
        tmp_path, scored(made("a0", 0), **both), scored(made("a1", 0, seed=1), **both, f1_lah_pp=0.3),
        scored(made("a2", 0, seed=2), **some, f1_lah_pp=0.5), scored(made("b0", 0, title="Two"), avg_l2=0.1, auc=0.7),
        scored(made("b1", 0, title="Two", seed=1), avg_l2=0.3, auc=0.9),
    )  # fmt: skip
    two, three = cells(tmp_path, "Gaze point and in/out")
    assert (three["seed"], three["avg_l2"]) == ("mean of 0, 1, 2", "0.2667 ± 0.2868"), "4.3027 standard errors"
    assert three["auc"] == "-", "seed 2 has none"
    assert (two["seed"], two["avg_l2"], two["auc"]) == ("mean of 0, 1", "0.2000", "0.8000"), "no interval of two"
    (social,) = cells(tmp_path, "Social gaze")
    assert (social["seed"], social["f1_lah_pp"]) == ("mean of 1, 2", "0.4000"), "the seeds that answer this task"
    data = (tmp_path / "index.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', data, re.DOTALL).group(1))
    assert data["gazeworld-social"]["rows"][0]["values"]["f1_lah_pp"]["all"] == [pytest.approx(0.4), None, None]
    assert [row["title"] for row in data["gazeworld"]["rows"] if "auc" in row["values"]] == ["Two"]


def test_seeds_that_change_nothing_are_one_result(tmp_path):
    for seed in range(3):
        write_record(scored(made(f"z{seed}", 0, seed=seed, title="Zero-shot"), avg_l2=0.4), tmp_path)
    built(tmp_path)
    (row,) = cells(tmp_path, "Gaze point and in/out")
    assert (row["seed"], row["avg_l2"]) == ("any (0, 1, 2)", "0.4000"), "no interval of width 0"
    assert float(rows(tmp_path)[0]["seeds"]) == 1


def test_seeds_of_other_sizes_or_sources_are_other_rows():
    """Records from before the full fingerprint go with the one that is known; where there are several, with none."""
    records = {str(seed): made(str(seed), 0.1, seed=seed) for seed in range(3)}
    for seed, full in (("1", "a"), ("2", "a")):
        records[seed]["data"]["full_fingerprint"] = full
    assert [group.runs for group in group_runs(records)] == [["0", "1", "2"]]
    records["2"]["data"]["full_fingerprint"] = "b"
    assert sorted(group.runs for group in group_runs(records)) == [["0"], ["1"], ["2"]]


def test_a_row_of_an_older_version_says_so():
    now, old = made("now", 0.1, title="OmniGF"), made("old", 0.1, title="OmniGF")
    for record, version in ((now, load_method("omnigf").version), (old, 1)):
        record["method"] |= {"name": "omnigf", "version": version}
    titles = [group.title for group in group_runs({"now": now, "old": old})]
    assert sorted(titles) == ["OmniGF", "OmniGF, version 1"]


def test_a_ranking_is_of_rows_that_answer_its_task(tmp_path):
    human, floor = made("h", 0, title="One annotator"), made("c", 0, title="Centre")
    human["method"] |= {"name": "one_annotator", "family": "baseline"}
    floor["method"] |= {"name": "center", "family": "baseline"}
    built(
        tmp_path, scored(human, avg_l2=0.01), scored(floor, avg_l2=0.05), scored(made("a", 0, title="A"), avg_l2=0.2),
        scored(made("b", 0, title="B"), avg_l2=0.1, vqa_overall=0.6, vqa_object=0.1),
        scored(made("c", 0, title="C"), vqa_overall=0.7, vqa_object=0.0), scored(made("d", 0, title="D"), ap=0.9),
        scored(made("e", 0, title="E"), acc_1_exact=0.9),
    )  # fmt: skip
    names = {task: [row["method"] for row in cells(tmp_path, task)]
             for task in ("Gaze point and in/out", "Questions about gaze, version 1", "Semantic gaze")}  # fmt: skip
    where = "(tiny{}) † ‡"
    assert names == {
        "Gaze point and in/out": [
            f"1. B {where.format('')}", f"2. A {where.format('')}", f"D {where.format('')}",
            f"One annotator {where.format(', label noise')}", f"Centre {where.format(', floor')}",
        ],
        "Questions about gaze, version 1": [f"1. C {where.format('')}", f"2. B {where.format('')}"],
        "Semantic gaze": [f"1. E {where.format('')}"],
    }  # fmt: skip
    boards = Tables((tmp_path / "index.html").read_text(encoding="utf-8")).boards
    assert {key for key in boards if key.startswith("gazeworld")} == {
        "gazeworld", "gazeworld-questions", "gazeworld-semantic"
    }  # fmt: skip
    groups = {row["method"]: row["group"] for row in boards["gazeworld"]}
    assert groups["One annotator"] == groups["Centre"] != groups["A"]
    assert not any(name.startswith("vqa") for row in boards["gazeworld"] for name in row)


def test_what_was_not_trained_for_a_task_has_no_rank_there():
    board = make_board("gazeworld", WORLD, read_files(BOARDS, "gazeworld"))
    tasks = {one.task: one for one in board.by_task}
    ranked = {task: {group.title for group in one.ranks} for task, one in tasks.items()}
    points, objects = (f"VL4Gaze (ours, {one} only), version 1" for one in ("point", "object"))
    assert {points, objects} <= ranked["questions"]
    assert points in ranked["gaze"]
    assert objects not in ranked["gaze"] | ranked["social"]
    gaze = [group.title for group in tasks["gaze"].groups]
    assert gaze.index(objects) > max(gaze.index(group.title) for group in tasks["gaze"].ranks)


def test_every_column_of_a_protocol_is_of_the_task_that_published_numbers_say():
    uses = [use for _, cls in usable("datasets") for use in metric_uses(cls.protocol).values()]
    tasks = {use.name: use.task for use in uses}
    rules = published.vocabulary().conventions.values()
    assert {rule.metric: rule.task for rule in rules if rule.metric in tasks}.items() <= tasks.items()
    assert set(tasks.values()) == set(TASKS)


def test_committed_tables_are_narrow_and_have_no_empty_column():
    tables = [found for task in TASKS.values() if (found := cells(BOARDS, task))]
    assert len(tables) >= 4
    for found in tables:
        assert len(found[0]) <= board.WIDEST
        assert all(any(row[name] != "-" for row in found) for name in found[0])


def test_what_a_record_does_not_say_is_marked(tmp_path):
    whole = made("w", 0.1, title="Whole") | {"intervals": INTERVALS}
    whole["method"] |= {"origin": "gazebench 0.1.0"}
    built(tmp_path, whole, made("old", 0.2, title="Old"))
    text = (tmp_path / "gazeworld" / "README.md").read_text(encoding="utf-8")
    assert [row["method"] for row in cells(tmp_path, "Gaze point and in/out")][:2] == ["1. Whole (tiny)",
                                                                                       "2. Old (tiny) † ‡"]  # fmt: skip
    for mark, gap in board.MARKS.items():
        assert f"{gap} The record has no {mark}: `old`." in text
    row = next(row for row in rows(tmp_path) if row["method"] == "Old")
    assert "no intervals" in row["text"]
    assert "no provenance" in row["text"]


def test_published_rows_are_the_published_numbers(tmp_path):
    shown = rows(built(tmp_path, made("a1", 0.2)), "gazefollow")
    cells = [cell for table in published.load() for cell in table.cells() if cell.column.dataset == "gazefollow"]
    for metric in ("auc", "avg_l2", "min_angle"):
        for subset in SUBSETS:
            there = {float(row[f"{metric}/{subset}"]) for row in shown if row.get(f"{metric}/{subset}")}
            same = (cell for cell in cells if (cell.convention.metric, cell.column.subset) == (metric, subset))
            assert there == {float(cell.value) for cell in same}
    assert {row["kind"] for row in shown} == {"published"}
    assert any("adapted foundation model" in row["family"] for row in shown), "families of our own methods are known"


def test_pages_follow_the_records(tmp_path):
    folder = built(tmp_path, made("a1", 0.2), made("b2", 0.3, title="Other")) / "gazeworld"
    assert stale(board.texts(tmp_path, "gazeworld", WORLD)) == []
    (folder / "mine.html").write_text("<p>not ours</p>")
    (folder / "hclora-b2.json").unlink()
    assert {path.name for path in stale(board.texts(tmp_path, "gazeworld", WORLD))} == {"README.md", "leaderboard.csv"}
    built(tmp_path)
    assert stale(board.texts(tmp_path, "gazeworld", WORLD)) == []
    assert {path.name for path in folder.glob("*.html")} == {"hclora-a1.html", "mine.html"}


def test_what_cannot_be_read_keeps_no_other_board_back(tmp_path):
    for name, text in (("gazehoi", "{"), ("nobody_knows", "{}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.json").write_text(text)
    text = (built(tmp_path, made("a1", 0.2)) / "index.html").read_text(encoding="utf-8")
    assert all(f'<p class="warning">{name}' in text for name in ("gazehoi", "nobody_knows"))
    assert rows(tmp_path)


def test_committed_pages_are_up_to_date():
    assert main(["leaderboard", "--check"]) == 0


def test_the_command_builds_pages_without_dead_links(tmp_path):
    for source in (BOARDS / "gazeworld").glob("*.json"):
        write_record(json.loads(source.read_text()), tmp_path)
    write_record(made("a1", 0.2, title="<script>alert(1)</script>"), tmp_path)
    assert main(["leaderboard", f"--boards={tmp_path}"]) == 0
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) == 1 + len(list(tmp_path.glob("*/*.json")))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "<script>alert" not in text, "a record's text is text"
        for address in re.findall(r'(?:src|href)="([^"]*)"', text):
            assert not re.match(r"(https?:)?//", address), "works offline"
            if not address.startswith(("data:", "#")):
                target, _, anchor = address.partition("#")
                assert (page.parent / target).is_file(), f"{page.name}: {address}"
                assert not anchor or f'id="board-{anchor}"' in (page.parent / target).read_text(encoding="utf-8")


def test_assets_are_whole_and_licensed():
    folder = ASSETS / "vendor"
    listed = dict(re.findall(r"^\| `([\w.]+)` .*`([0-9a-f]{64})` \|$", (folder / "README.md").read_text(), re.M))
    assert listed == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.js")}
    licences = (folder / "LICENSES.txt").read_text()
    assert all(f"({name})" in licences for name in listed)
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) < 1e6


# The page of a run -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    places = Places(folder / "runs", folder / "boards")
    config = small_config("gazelle", "gazeworld", "--dataset.test=12", "--loader.selection=val")
    outcome = bench(config, places)
    show(outcome, config, places)
    return places, outcome, config


def test_the_page_of_a_run_has_what_its_folder_has(run):
    places, outcome, _ = run
    text = (outcome.folder / "report.html").read_text(encoding="utf-8")
    assert 'class="warning"' not in text, "nothing is left out"
    assert text.count("<svg") == 4, "losses, validation, and two distributions"
    assert "currentColor" in text
    assert "#010203" not in text
    degrees = people(outcome.folder)["metric_avg_angle"].dropna()
    for limit in run_page.ANGLES:
        count = (degrees > limit).sum()
        assert f">{count} ({100 * count / len(degrees):.1f}%)<" in text
    cards = re.findall(r'<li data-subset="([^"]+)" data-band="([^"]+)"', text)
    assert {subset for subset, _ in cards} <= {"consistent", "inconsistent", "out of frame"}
    files = re.findall(r'<img src="([^"]+)"', text)
    assert len(files) == len(cards) > 0
    assert all((outcome.folder / file).is_file() for file in files)
    index = places.runs / "board" / "index.html"
    assert f'href="../gazeworld/gazelle/{outcome.record["run"]}/report.html"' in index.read_text(encoding="utf-8")
    assert 'href="../../../board/index.html#gazeworld"' in text


def test_groups_are_counted_as_they_are(run):
    _, outcome, config = run
    scored, protocol = people(outcome.folder), WORLD.protocol
    records = config.dataset.cls(**config.values["dataset"]).records("test")
    uses = protocol.metric("avg_l2"), [protocol.metric("avg_angle")]
    table = run_page.by_group(scored, records, *uses)["table"]
    everybody = dict(zip((column.title for column in table.columns), table.rows[0], strict=True))
    scored = scored[scored["metric_avg_l2"].notna()]
    stored = outcome.record["metrics"]["avg_l2"]["all"]
    score = everybody["avg_l2"]
    assert everybody["n"] == score.count == len(scored)
    assert score.value == pytest.approx(scored["metric_avg_l2"].mean())
    assert everybody["median"] == pytest.approx(scored["metric_avg_l2"].median())
    assert (score.low, score.high) == pytest.approx((stored["low"], stored["high"]), abs=1e-6), "one way of drawing"
    assert everybody["> 90°"] == f"{100 * (scored['metric_avg_angle'] > 90).mean():.1f}%"


def test_the_gallery_has_the_worst_the_best_and_some_between(run):
    scored, use = people(run[1].folder), WORLD.protocol.metric("avg_l2")
    chosen = run_page.choose(scored, use, higher=False)
    errors = chosen["error"].dropna()
    assert errors.is_monotonic_decreasing
    assert errors.iloc[0] == scored["metric_avg_l2"].max()
    assert errors.iloc[-1] == scored["metric_avg_l2"].min()
    assert (chosen.groupby(["shown", "band"]).size() <= run_page.EACH).all()
    better = run_page.choose(scored, use, higher=True)
    assert better["error"].dropna().iloc[0] == scored["metric_avg_l2"].min(), "of a score the lowest is the worst"


def test_a_part_or_a_page_that_fails_costs_nothing_else(run, tmp_path, capsys, monkeypatch):
    places, outcome, config = run

    def gone(*arguments):
        raise OSError("the disk with the images is away")

    monkeypatch.setattr(run_page, "scene", gone)
    target = tmp_path / "gazeworld" / "gazelle" / outcome.record["run"]
    target.mkdir(parents=True)
    for name in ("record.json", "config.yaml", "predictions.parquet", "scores.parquet"):
        (target / name).write_bytes((outcome.folder / name).read_bytes())
    text = run_page.write(target, places).read_text(encoding="utf-8")
    assert "the disk with the images is away" in text
    assert text.count("<svg") == 2, "distributions are there"
    assert "the disk with the images is away" in capsys.readouterr().err
    (outcome.folder / "report.html").unlink()
    monkeypatch.setattr(run_page, "write", gone)
    show(outcome, config, places)
    shown = capsys.readouterr()
    assert "avg_l2" in shown.out
    assert f"gazebench report {outcome.folder}" in shown.err


def test_the_command_writes_it_again(run, capsys):
    places, outcome, _ = run
    where = [f"--runs={places.runs}", f"--boards={places.boards}"]
    page = outcome.folder / "report.html"
    page.unlink(missing_ok=True)
    assert main(["report", outcome.record["run"], *where]) == 0
    assert page.is_file()
    assert str(page) in capsys.readouterr().out
    assert main(["report", "nowhere", *where]) == 2
    assert "nowhere" in capsys.readouterr().err
