"""The papers' tables with our runs beside them: which record fills which cell, and how it is written."""

import copy
import json
import re
import shutil
from decimal import Decimal
from io import StringIO

import pandas as pd
import pytest
import yaml
from markupsafe import escape

from gazebench.cli.main import main
from gazebench.engine.config import resolve
from gazebench.engine.contract import small_config
from gazebench.engine.registry import load_dataset
from gazebench.engine.run import BOARDS, Places, bench
from gazebench.report import paper_tables, published
from gazebench.study import papers
from gazebench.study.plan import read_plan
from gazebench.study.store import Store

SMALL = [f"--dataset.{split}={count}" for split, count in (("train", 6), ("val", 3), ("test", 4))]
WORDS = published.vocabulary()
TABLES = published.load()


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """A real record, to be varied."""
    folder = tmp_path_factory.mktemp("run")
    outcome = bench(small_config("center", "gazeworld"), Places(folder / "runs", folder / "boards"))
    return json.loads((outcome.folder / "record.json").read_text())


def put(boards, record, *, dataset="gazefollow", status="official", seed=0, run="r", finished="2026-01-01", value=0.1,
        method="gazelle", model=None):  # fmt: skip
    new = copy.deepcopy(record)
    protocol = load_dataset(dataset).protocol
    new |= {"dataset": dataset, "seed": seed, "run": f"{run}-{seed}", "finished": finished}
    new["protocol"] = json.loads(json.dumps(protocol.describe()))
    new["status"] = {"class": status, "reasons": []}
    new["method"]["name"] = method
    new["config"]["model"] = model or {"backbone": "dinov2_vitb14"}
    new["metrics"] = {
        use.name: {subset: {"value": value, "count": 9} for subset in ("all", "consistent", "inconsistent")}
        for use in protocol.metrics
    }
    path = boards / dataset / f"{method}-{new['run']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(new))


def filled_of(boards, name, dataset=""):
    return paper_tables.fill(published.table_of(TABLES, name), WORDS, boards, dataset)


def cell(filled, method, metric, subset="all", backbone=""):
    for line in filled.rows:
        if line.row.method == method and line.row.backbone == backbone:
            for column, ours in zip(filled.table.columns, line.ours, strict=True):
                if (column.convention.metric, column.subset) == (metric, subset):
                    return ours
    raise AssertionError(f"no {method} {metric} {subset}")


def test_every_recipe_is_a_method_of_the_suite_with_these_options():

    for key, recipe in WORDS.runs.items():
        options = [f"--{name}={value}" for name, value in recipe.options.items()]
        config = resolve([recipe.method, "gazeworld", *options])
        for name, value in recipe.options.items():
            assert config.values["model"][name.removeprefix("model.")] == yaml.safe_load(value), key
    titles = {load_dataset(name).card.synthetic for name in WORDS.stand_ins}
    assert titles == {True}


def test_seeds_are_averaged_and_compared_with_the_published_value(tmp_path, record):
    for seed, value in enumerate((0.100, 0.104, 0.108)):
        put(tmp_path, record, seed=seed, value=value)
    filled = filled_of(tmp_path, "field-main")
    ours = cell(filled, "gazelle", "avg_l2", backbone="ViT-B")
    assert ours.value.mean == pytest.approx(0.104)
    assert ours.value.half == pytest.approx(4.302653 * 0.004 / 3**0.5, rel=1e-5)  # Student's t with two degrees
    assert (ours.published, ours.reproduced) == (Decimal(".104"), True)
    assert ours.difference == pytest.approx(0.0)
    far = cell(filled, "gazelle", "min_l2", backbone="ViT-B")
    assert far.reproduced is False
    assert far.difference == pytest.approx(0.104 - 0.045)
    assert cell(filled, "gazelle", "avg_l2", backbone="ViT-L").value.count == 0, "another backbone"


@pytest.mark.parametrize(
    "other",
    [
        {"status": "smoke"},
        {"method": "hclora", "model": {"adaptation": "lora", "supervision": "none", "backbone": "dinov2_vitb14"}},
        {"model": {"backbone": "dinov2_vitl14"}},
        {"dataset": "vat"},
    ],
    ids=str,
)
def test_what_is_not_the_row_does_not_fill_it(tmp_path, record, other):
    put(tmp_path, record, **other)
    assert all(row.seeds == 0 for row in filled_of(tmp_path, "hclora-3").rows)


def test_the_newest_record_of_a_seed_counts(tmp_path, record):
    put(tmp_path, record, run="old", finished="2026-01-01", value=0.5)
    put(tmp_path, record, run="new", finished="2026-02-01", value=0.25)
    ours = cell(filled_of(tmp_path, "hclora-3"), "gazelle", "avg_l2", "inconsistent")
    assert (ours.value.mean, ours.value.count) == (0.25, 1)


def test_missing_cells_name_the_command_that_fills_them(tmp_path, record):
    filled = filled_of(tmp_path, "hclora-4")
    commands = list(filled.missing)
    assert (
        'make bench METHOD=hclora DATASET=gazefollow DATA_ROOT=... BACKBONE=dinov2_vitb14 '
        'ARGS="--model.adaptation=hclora --model.supervision=cone --dataset.subsets=..."'
    ) in commands  # fmt: skip
    put(tmp_path, record, method="hclora",
        model={"adaptation": "hclora", "supervision": "cone", "backbone": "dinov2_vitb14"})  # fmt: skip
    left = filled_of(tmp_path, "hclora-4")
    assert len(left.missing) == len(filled.missing) - 1
    assert all(
        text in paper_tables.latex(filled) and str(escape(text)) in paper_tables.html(filled) for text in commands
    )
    assert set(pd.read_csv(StringIO(paper_tables.csv(filled)))["command"].dropna()) == set(commands)
    assert "make splits DATASET=gazefollow" in paper_tables.markdown(filled)
    counts = filled_of(tmp_path, "hclora-fig7")
    assert not counts.missing, "no run has a number of people in its record"


def test_rows_that_differ_in_what_they_are_not(tmp_path, record):
    text = {"branches": "language", "head_tokens": False, "tuning": "none", "backbone": "tiny"}
    put(tmp_path, record, method="omnigf", model=text, dataset="gazeworld", status="synthetic", value=0.4)
    put(tmp_path, record, method="omnigf", model=text | {"tuning": "full"}, run="full", dataset="gazeworld",
        status="synthetic", value=0.2)  # fmt: skip
    filled = filled_of(tmp_path, "omnigf-2", "gazeworld")
    values = {line.row.method: line.ours[0].value for line in filled.rows}
    assert {name: value.mean for name, value in values.items() if value.count} == {
        "qwen3vl+zero-shot": 0.4, "omnigf+language": 0.2
    }  # fmt: skip
    command = 'make bench METHOD=omnigf DATASET=gazeworld ARGS="--model.branches=both --model.head_tokens=true"'
    assert "OmniGF" in filled.missing[command] or "✓ ✓ ✓" in filled.missing[command]


def test_a_drawn_dataset_fills_the_layout_and_is_compared_with_nothing(tmp_path, record):
    put(tmp_path, record, dataset="gazeworld", status="synthetic", model={"backbone": "tiny"})
    filled = filled_of(tmp_path, "hclora-1", "gazeworld")
    ours = cell(filled, "gazelle", "auc", "consistent")
    assert ours.value.count == 1
    assert ours.published is None
    assert ours.difference is None
    text = paper_tables.markdown(filled)
    assert "published |" not in text
    assert "no number here can be compared" in text
    assert not any(line.ours for line in filled.rows if line.row.backbone == "ViT-L"), "one backbone, one row"


def test_every_table_in_every_format(tmp_path, record):
    put(tmp_path, record, value=0.1049)
    for table in TABLES:
        filled = paper_tables.fill(table, WORDS, tmp_path)
        printed = [value for row in table.rows for value in row.values if value is not None]
        for kind, writer in paper_tables.WRITERS.items():
            text = writer(filled)
            assert all(value in text for value in printed), f"{table.id}: {kind} lost a digit"
    filled = filled_of(tmp_path, "hclora-3")
    tex = paper_tables.latex(filled)
    assert all(rule in tex for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\multicolumn{5}{c}{Consistent}"))
    assert "0.1049" in tex
    assert tex.count("{") == tex.count("}")
    body = "\n".join(line for line in tex.splitlines() if not line.startswith("%"))
    assert not re.search(r"(?<!\\)[&%_#](?=[^ ])", body), "an unescaped sign"


def test_a_plan_of_a_table_is_a_study(tmp_path):
    filled = filled_of(tmp_path, "hclora-4", "gazeworld")
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(paper_tables.plan(filled, WORDS, "gazeworld", [0, 1]), sort_keys=False))
    plan = read_plan(path)
    assert len(plan.runs) == 2 * sum(line.ours is not None for line in filled.rows)
    assert {row.title for row in plan.rows.values()} == {line.row.title for line in filled.rows if line.ours}


IDENTITY = {"data": {"test": "f" * 16}}


@pytest.fixture
def studies(tmp_path):
    """A study that draws one figure, of one row."""
    plan = {
        "title": "T", "dataset": "gazeworld", "seeds": [0],
        "rows": {"frozen": {"title": "Gaze-LLE", "method": "gazelle"}},
        "figures": [{"kind": "subsets", "file": "bars.png", "title": "Bars", "metric": "avg_l2", "rows": ["frozen"],
                     "paper": ["hclora-figure-2"]}],
    }  # fmt: skip
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "plan.yaml").write_text(yaml.safe_dump(plan))
    return tmp_path / "studies"


def test_figures_are_drawn_by_the_studies_that_name_them(tmp_path, record, studies, capsys):
    options = [f"--boards={tmp_path / 'boards'}", f"--studies={studies}", f"--runs={tmp_path / 'runs'}"]
    assert main(["tables", "hclora-figure-2", *options]) == 0
    told = capsys.readouterr().out
    assert "*Bars*: not drawn for want of results." in told
    assert "0 of 1 runs are in; `gazebench study" in told
    store = Store(studies / "plan")
    store.add(read_plan(studies / "plan.yaml").runs[0], record, id="i", identity=IDENTITY, seconds=1.0, scores=None)
    assert main(["tables", "hclora-figure-2", *options]) == 0
    assert "runs are in" not in capsys.readouterr().out
    assert (studies / "plan" / "bars.png").read_bytes().startswith(b"\x89PNG")
    assert main(["tables", *options]) == 0
    page = tmp_path / "boards" / "tables" / "README.md"
    (link,) = re.findall(r"!\[Bars\]\((.*)\)", page.read_text())
    assert (page.parent / link).resolve() == (studies / "plan" / "bars.png").resolve()
    assert "Figure 3\n" in page.read_text(), "a figure that no study draws is named, too"
    assert main(["tables", "--check", *options]) == 0
    capsys.readouterr()
    assert (
        main(["tables", "hclora-figure-2", "--run", "--dataset=gazefollow", "--dry-run", "--seeds=0,1", *options]) == 0
    )
    assert "Figure 2: 2 runs, 0 recorded, 2 to do" in capsys.readouterr().out
    made = read_plan(tmp_path / "boards" / "tables" / "plans" / "hclora-figure-2-gazefollow.yaml")
    assert [figure.file for figure in made.figures] == ["bars.png"]
    assert main(["tables", "hclora-figure-2", "--run", "--dataset=gazeworld", "--dry-run", *SMALL, *options]) == 0
    assert "T: 1 runs" in capsys.readouterr().out, "on its own dataset it is the study itself"
    assert main(["tables", "hclora-figure-3", "--run", *options]) == 2
    assert "hclora-figure-3" in capsys.readouterr().err
    text = (studies / "plan.yaml").read_text().replace("hclora-figure-2", "hclora-figure-20")
    (studies / "plan.yaml").write_text(text)
    assert main(["tables", *options]) == 2
    assert "hclora-figure-20" in capsys.readouterr().err


def test_the_figures_of_the_paper_are_drawn():
    figures = published.figures()
    drawn = papers.drawings(papers.STUDIES, figures)
    assert {figure.id for figure in figures} == {name for one in drawn for name in one.figure.paper}


def test_models_by_tasks_stand_on_the_same_page(tmp_path):
    assert paper_tables.question_sections(tmp_path) == []
    shutil.copytree(BOARDS / "vqa", tmp_path / "vqa")
    (section,) = paper_tables.question_sections(tmp_path)
    first, *rest = section.splitlines()
    assert first.startswith("## ")
    assert first.endswith("Questions about GazeWorld")
    table = [
        line for line in (tmp_path / "vqa" / "gazeworld" / "README.md").read_text().splitlines() if line[:1] == "|"
    ]
    assert [line for line in rest if line[:1] == "|"] == table
    assert (BOARDS / "tables" / re.findall(r"\]\((.+?)\)", section)[0]).resolve().is_file()


def test_the_command(tmp_path, capsys):
    boards = f"--boards={tmp_path}"
    assert main(["tables", boards]) == 0
    assert main(["tables", boards, "--check"]) == 0
    (tmp_path / "tables" / "README.md").write_text("old")
    assert main(["tables", boards, "--check"]) == 1
    assert main(["tables", "hclora-3", boards, "--format=tex"]) == 0
    assert (tmp_path / "tables" / "hclora-3.tex").is_file()
    run = ["tables", "hclora-3", "--run", "--dataset=gazeworld", "--seeds=0,1", "--dry-run", *SMALL, boards]
    assert main([*run, f"--runs={tmp_path / 'runs'}"]) == 0
    assert "6 runs, 0 recorded" in capsys.readouterr().out
    for arguments, named in (
        (["nonsense"], "nonsense"),
        (["--run"], "--run"),
        (["hclora-3", "--run", "--seeds=a"], "--seeds a"),
        (["field-gazeseg", "--run", "--dataset=gazeworld"], "field-gazeseg"),
        (["--dataset.root=x"], "--dataset.root"),
    ):
        assert main(["tables", *arguments, boards]) == 2
        assert named in capsys.readouterr().err
