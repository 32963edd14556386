"""The pages of leaderboards: their numbers are the records', seeds are means, nothing passes for what it is not."""

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from gazebench.cli.main import main
from gazebench.engine.contract import small_config
from gazebench.engine.record import write_record
from gazebench.engine.registry import load_dataset
from gazebench.engine.run import Places, bench
from gazebench.metrics.intervals import interval
from gazebench.metrics.protocol import SUBSETS
from gazebench.report import page as report_page
from gazebench.report import published
from gazebench.report.board import local, refresh, stale
from gazebench.report.board.rows import COSTS, board, gather, published_rows
from gazebench.report.board.templating import ASSETS
from gazebench.report.run import show

ROOT = Path(__file__).resolve().parent.parent
WORLD = load_dataset("gazeworld")
BASE = json.loads(next((ROOT / "leaderboards" / "gazeworld").glob("hclora-1ec*.json")).read_text(encoding="utf-8"))


def made(run, value, *, seed=0, klass="synthetic", title="HCLoRA", finished="2026-01-01T00:00:00+00:00", **config):
    """A record like a committed one, with an interval."""
    record = json.loads(json.dumps(BASE))
    record |= {"run": run, "seed": seed, "finished": finished}
    record["method"]["title"] = title
    record["status"] = {"class": klass, "reasons": ["because"] if klass == "smoke" else []}
    record["config"]["model"] |= config
    record["config"]["seed"] = seed
    score = {"value": value, "count": 9, "low": value - 0.01, "high": value + 0.02, "sources": 4}
    record["metrics"]["avg_l2"] = {"all": score, "inconsistent": {"value": 2 * value, "count": 3}}
    return record


def site(folder, *records):
    for record in records:
        write_record(record, folder)
    refresh(folder, "gazeworld", WORLD)
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
    records = [made("a1", 0.2), made("b2", 0.1, title="Other", klass="smoke"), made("c3", 0.3, title="Third")]
    shown = {row["method"]: row for row in rows(site(tmp_path, *records))}
    for record in records:
        row = shown[record["method"]["title"]]
        assert row["kind"] == record["status"]["class"]
        for metric, subsets in record["metrics"].items():
            for subset, score in subsets.items():
                assert float(row[f"{metric}/{subset}"]) == score["value"]
        assert "avg_l2/consistent" not in row, "nobody has one"
        assert float(row["people"]) == record["samples"]["people"]
        assert float(row["trained"]) == record["parameters"]["trained"]
        assert float(row["test"]) == pytest.approx(1000 * record["wall_seconds"]["test"] / 1276)
        assert float(row["memory"]) == record["peak_memory_bytes"]["process"] / 2**30
        low, high = record["metrics"]["avg_l2"]["all"]["low"], record["metrics"]["avg_l2"]["all"]["high"]
        assert f"{low:.4f} to {high:.4f}" in row["text"]
    assert [row["group"] for row in rows(tmp_path)] == ["1", "1", "2"], "the best value, of a smoke run, stands last"
    text = (tmp_path / "gazeworld" / "README.md").read_text(encoding="utf-8")
    assert "| 0.2000 (0.1900 to 0.2200) " in text
    frame = pd.read_csv(tmp_path / "gazeworld" / "leaderboard.csv").set_index("run")
    assert frame.loc["a1", ["avg_l2", "avg_l2 low", "avg_l2 high"]].tolist() == pytest.approx([0.2, 0.19, 0.22])


def test_the_plot_has_the_same_numbers(tmp_path):
    text = (site(tmp_path, made("a1", 0.2), made("b2", 0.3, seed=1)) / "index.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL).group(1))["gazeworld"]
    (row,), expected = data["rows"], interval([0.2, 0.3])
    assert row["values"]["avg_l2"]["all"] == pytest.approx([expected.mean, expected.low, expected.high])
    assert row["costs"].keys() == {cost.key for cost in COSTS}
    assert data["metrics"]["avg_l2"] == {"higher": False, "digits": 4}
    assert (tmp_path / row["href"]).is_file()


def test_seeds_of_one_configuration_are_one_row(tmp_path):
    found = site(
        tmp_path, made("s0", 0.2), made("s1", 0.3, seed=1), made("s2", 0.4, seed=2, finished="2026-01-02"),
        made("old", 0.9, seed=1, finished="2025-01-01"), made("rank", 0.5, rank=4),
        made("smoke", 0.2, seed=3, klass="smoke"),
    )  # fmt: skip
    stored = {path.stem: json.loads(path.read_text()) for path in found.glob("*/*.json")}
    assert {tuple(entry.runs) for entry in gather(stored)} == {("s0", "s1", "s2"), ("old",), ("rank",), ("smoke",)}
    row = next(row for row in rows(found) if row["seeds"] == "3")
    expected = interval([0.2, 0.3, 0.4])
    assert float(row["avg_l2/all"]) == pytest.approx(expected.mean)
    assert f"± {expected.half:.4f}" in row["text"]
    line = next(line for line in (found / "gazeworld" / "README.md").read_text().splitlines() if "s0, s1, s2" in line)
    assert "| mean of 0, 1, 2 |" in line
    assert f"{expected.mean:.4f} ± {expected.half:.4f}" in line
    page = (found / "gazeworld" / "hclora-s0.html").read_text(encoding="utf-8")
    assert 'href="hclora-s1.html">seed 1' in page
    assert "hclora-old.html" not in page


def test_published_rows_are_the_published_numbers(tmp_path):
    shown = rows(site(tmp_path, made("a1", 0.2)), "gazefollow")
    tables = published.load()
    for metric in ("auc", "avg_l2", "min_angle"):
        for subset in SUBSETS:
            there = {float(row[f"{metric}/{subset}"]) for row in shown if row.get(f"{metric}/{subset}")}
            assert there == {
                float(c.value) for c in published.find(tables, dataset="gazefollow", metric=metric, subset=subset)
            }
    assert {row["kind"] for row in shown} == {"published"}
    assert {cell.where for row in published_rows()["gazefollow"] for cell in row.cells.values()}, "each knows its place"
    assert any("adapted foundation model" in row["family"] for row in shown), "families of our own methods are known"


def test_text_of_records_is_text(tmp_path):
    found = site(tmp_path, made("a1", 0.2, title="<script>alert(1)</script>"))
    for page in found.rglob("*.html"):
        assert "<script>alert" not in page.read_text(encoding="utf-8"), page


def test_pages_follow_the_records(tmp_path):
    found = site(tmp_path, made("a1", 0.2), made("b2", 0.3, title="Other"))
    known = {"gazeworld": WORLD}
    assert stale(found, known) == []
    (found / "gazeworld" / "mine.html").write_text("<p>not ours</p>")
    (found / "gazeworld" / "hclora-b2.json").unlink()
    names = {path.name for path in stale(found, known)}
    assert names == {"index.html", "README.md", "leaderboard.csv", "hclora-b2.html"}
    refresh(found, "gazeworld", WORLD)
    assert stale(found, known) == []
    assert {path.name for path in (found / "gazeworld").glob("*.html")} == {"hclora-a1.html", "mine.html"}
    (found / "gazeworld" / "hclora-a1.html").unlink()
    assert [path.name for path in stale(found, known)] == ["hclora-a1.html"]


def test_what_cannot_be_read_keeps_no_other_board_back(tmp_path):
    for name, text in (("gazehoi", "{"), ("nobody_knows", "{}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.json").write_text(text)
    text = (site(tmp_path, made("a1", 0.2)) / "index.html").read_text(encoding="utf-8")
    assert "gazehoi is not shown" in text
    assert "nobody_knows is not shown" in text
    assert rows(tmp_path)


def test_committed_pages_are_up_to_date():
    assert main(["leaderboard", "--check"]) == 0


def test_assets_are_whole_and_named(tmp_path):
    site(tmp_path, made("a1", 0.2))
    listed = dict(
        re.findall(r"^\| `([\w.]+)` .*`([0-9a-f]{64})` \|$", (ASSETS / "vendor" / "README.md").read_text(), re.M)
    )
    assert listed == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (ASSETS / "vendor").glob("*.js")
    }
    licences = (ASSETS / "vendor" / "LICENSES.txt").read_text()
    assert all(f"({name})" in licences for name in listed)
    used = re.findall(r'(?:src|href)="(assets/[^"]+)"', (tmp_path / "index.html").read_text(encoding="utf-8"))
    assert len(used) >= 7
    assert all((tmp_path / name).is_file() for name in used), "a board elsewhere brings its own"
    assert 'href="../assets/board.css"' in (tmp_path / "gazeworld" / "hclora-a1.html").read_text(encoding="utf-8")
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) < 1e6
    assert 'src="../gazebench/board/assets/board.js"' in (ROOT / "leaderboards" / "index.html").read_text(
        encoding="utf-8"
    )


def test_nothing_is_fetched(tmp_path):
    found = site(tmp_path, made("a1", 0.2))
    for page in found.rglob("*.html"):
        assert not re.findall(r'(?:src|href)="(?:https?:)?//', page.read_text(encoding="utf-8")), page


# The report of a run ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    places = Places(folder / "runs", folder / "boards")
    config = small_config("gazelle", "gazeworld", "--dataset.test=12", "--loader.selection=val")
    outcome = bench(config, places)
    show(outcome, config)
    return places, outcome, config


def test_a_record_alone_makes_a_page(tmp_path):
    record = made("a1", 0.2)
    text = (site(tmp_path, record) / "gazeworld" / "hclora-a1.html").read_text(encoding="utf-8")
    for name, setting in record["config"]["provenance"].items():
        assert f"<code>{name}</code>" in text
        assert setting["why"][:40].split("'")[0] in text
    for told in (
        "0.1900 to 0.2200",
        "9 of 4 sources",
        record["data"]["fingerprint"],
        "synthetic",
        "gazebench report a1",
    ):
        assert told in text, told
    assert record["config"]["model"]["backbone"] in text


def test_the_page_of_a_run_has_what_its_folder_has(run):
    places, outcome, _ = run
    text = (outcome.folder / "report.html").read_text(encoding="utf-8")
    assert "Left out" not in text
    for heading in ("Training and errors", "Who it errs on", "Large angles", "Pictures", "Settings and where"):
        assert f"<h2>{heading}" in text, heading
    assert text.count("<svg") == 4, "losses, validation, and two distributions"
    assert "currentColor" in text
    assert "#010203" not in text
    people = pd.read_parquet(outcome.folder / "predictions.parquet")
    degrees = people["metric_avg_angle"].dropna()
    for limit in report_page.ANGLES:
        count = (degrees > limit).sum()
        assert f">{count} ({100 * count / len(degrees):.1f}%)<" in text
    cards = re.findall(r'<li data-subset="([^"]+)" data-band="([^"]+)"', text)
    assert cards
    assert {subset for subset, _ in cards} <= {"consistent", "inconsistent", "out of frame"}
    for file in re.findall(r'<img src="([^"]+)"', text):
        assert (outcome.folder / file).is_file()
    assert (places.runs / "index.html").is_file()
    name = f"gazeworld/gazelle/{outcome.record['run']}/report.html"
    assert f'href="{name}"' in (places.runs / "index.html").read_text(encoding="utf-8"), "here runs lead to their pages"
    shared = (places.boards / "index.html").read_text(encoding="utf-8")
    assert f'href="gazeworld/gazelle-{outcome.record["run"]}.html"' in shared
    assert name not in shared, "what is shared knows nothing of this machine"


def test_groups_are_counted_as_they_are(run):
    _, outcome, config = run
    people = pd.read_parquet(outcome.folder / "predictions.parquet").set_index("person_id")
    protocol = WORLD.protocol
    dataset = config.dataset(**config.values["dataset"])
    table = report_page.by_group(people, dataset, protocol.use("avg_l2"), [protocol.use("avg_angle")])
    found = {row[0]: dict(zip(table["heads"], row, strict=True)) for row in table["rows"]}
    scored = people[people["metric_avg_l2"].notna()]
    everybody = found["everybody"]
    assert everybody["n"] == str(len(scored))
    assert everybody["avg_l2"] == f"{scored['metric_avg_l2'].mean():.4f}"
    assert everybody["median"] == f"{scored['metric_avg_l2'].median():.4f}"
    stored = outcome.record["metrics"]["avg_l2"]["all"]
    assert everybody["95% interval"] == f"{stored['low']:.4f} to {stored['high']:.4f}", "one way of drawing, everywhere"
    assert everybody["> 90°"] == f"{100 * (scored['metric_avg_angle'] > 90).mean():.1f}%"


def test_the_gallery_has_the_worst_the_best_and_some_between(run):
    _, outcome, _ = run
    people = pd.read_parquet(outcome.folder / "predictions.parquet").set_index("person_id")
    use = WORLD.protocol.use("avg_l2")
    chosen = report_page.choose(people, use, higher=False)
    errors = chosen["error"].dropna()
    assert errors.is_monotonic_decreasing
    assert errors.iloc[0] == people["metric_avg_l2"].max()
    assert errors.iloc[-1] == people["metric_avg_l2"].min()
    assert (chosen.groupby(["shown", "band"]).size() <= report_page.EACH).all()
    better = report_page.choose(people, use, higher=True)
    assert better["error"].dropna().iloc[0] == people["metric_avg_l2"].min(), "of a score the lowest is the worst"


def test_a_part_that_fails_is_named_and_costs_nothing_else(run, tmp_path, capsys, monkeypatch):
    _, outcome, _ = run

    def gone(*arguments):
        raise OSError("the disk with the pictures is away")

    monkeypatch.setattr(report_page, "scene", gone)
    target = tmp_path / "gazeworld" / "gazelle" / outcome.record["run"]
    target.mkdir(parents=True)
    for name in ("record.json", "config.yaml", "predictions.parquet"):
        (target / name).write_bytes((outcome.folder / name).read_bytes())
    text = report_page.write_page(outcome.record, target).read_text(encoding="utf-8")
    assert "pictures: the disk with the pictures is away" in text
    assert "Who it errs on" in text
    assert "pictures left out" in capsys.readouterr().err


def test_a_report_that_fails_costs_no_result(run, capsys, monkeypatch):
    _, outcome, config = run

    def broken(*arguments):
        raise RuntimeError("no room left")

    (outcome.folder / "report.html").unlink()
    monkeypatch.setattr("gazebench.report.run.write_page", broken)
    show(outcome, config)
    said = capsys.readouterr()
    assert "avg_l2" in said.out
    assert "no room left" in said.err
    assert "gazebench report" in said.err


def test_the_command_writes_it_again(run, capsys):
    places, outcome, _ = run
    where = [f"--runs={places.runs}", f"--boards={places.boards}"]
    page = outcome.folder / "report.html"
    page.unlink(missing_ok=True)
    assert main(["report", outcome.record["run"], *where]) == 0
    assert page.is_file()
    assert str(page) in capsys.readouterr().out
    assert main(["report", "nowhere", *where]) == 2
    assert "0 finished runs are called so" in capsys.readouterr().err


def test_without_a_full_page_there_is_no_board_of_this_machine(tmp_path):
    assert local(site(tmp_path, made("a1", 0.2)), tmp_path / "runs") is None


def test_columns_are_those_somebody_has():
    shown = board("gazeworld", WORLD, {"a": made("a1", 0.2)})
    names = {(column.metric, column.subset) for column in shown.columns}
    assert ("avg_l2", "inconsistent") in names
    assert ("avg_l2", "consistent") not in names
    assert ("ap", "consistent") not in names
