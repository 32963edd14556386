"""Published numbers: what a file may say, and every cell against the texts they were taken from.

The texts' tables are read here by other code than the files', so that a slip in either is found. What is from no text
stands a second time, in another notation, in ``data/published.yaml``.
"""

import re
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
import yaml

from gazebench.core.errors import DataError
from gazebench.engine.registry import entries, load_dataset
from gazebench.report.published import CONVENTIONS, UNITS, figures, load, table_of, vocabulary

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "leaderboards" / "published"
PAPERS = ROOT.parent / "shared" / "papers"
NOTED = yaml.load((ROOT / "tests" / "data" / "published.yaml").read_text(encoding="utf-8"), yaml.BaseLoader)


@pytest.fixture(scope="module")
def tables():
    return load()


@pytest.fixture(scope="module")
def texts():
    paths = [PAPERS / f"{key}.txt" for key in ("hclora", "omnigf")]
    if not all(path.is_file() for path in paths):
        pytest.skip("the papers' texts are not beside this checkout")
    return {path.stem: path.read_text(encoding="utf-8") for path in paths}


def find(tables, *, subset="all", **wanted):
    """The cells of a data set, metric, method or source, for one subset or, with None, for all."""
    return [
        cell
        for table in tables
        for cell in table.cells()
        if subset in (None, cell.column.subset)
        and wanted.items()
        <= {"dataset": cell.column.dataset, "metric": cell.convention.metric, "method": cell.row.method,
            "source": table.source.key}.items()
    ]  # fmt: skip


def number(tables, name, row, column):
    """The value in a row and a column, both by their titles (or a row by its beginning)."""
    [found] = [
        cell
        for cell in table_of(tables, name).cells()
        if cell.column.title == column and (cell.row.title == row or cell.row.title.startswith(f"{row} I"))
    ]
    return found.value


# What a file may say -------------------------------------------------------------------------------------------

WORDS = """
conventions:
  far: {metric: l2, unit: normalised, better: lower, stated: paper, text: A distance., tolerance: 0.010}
  near: {metric: min_l2, unit: normalised, better: lower, stated: paper, text: Another distance.}
  share: {metric: ap, unit: fraction, better: higher, stated: not stated, text: A share.}
datasets: {vat: VideoAttentionTarget}
methods: {one: The first, two+x: The second}
"""
PAPER = """
source: {key: paper, title: A paper, notes: [short]}
tables:
  - id: paper-1
    place: Table 1
    title: Results
    dataset: vat
    tag: paper
    labels: [Method, Input]
    columns:
      - {group: All, header: L2, subset: all, convention: far, decimals: 4}
      - {group: Hard, header: L2, subset: inconsistent, convention: far, decimals: 4}
      - {header: AP, subset: all, convention: share, decimals: 3}
    rows:
      - {labels: [One, I], cite: 7, method: one, values: [0.1040, 0.2000, null], underlined: [2]}
      - {labels: [Two, null], method: two+x, values: [.0970, 0.1900, 1.000], conventions: {far: near}}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / CONVENTIONS).write_text(WORDS)
    (tmp_path / "paper.yaml").write_text(PAPER)
    return tmp_path


def test_digits_survive(folder):
    [table] = load(folder)
    found = list(table.cells())
    assert [cell.printed for cell in found] == ["0.1040", "0.2000", ".0970", "0.1900", "1.000"]
    assert str(found[0].value) == "0.1040"
    assert found[2].value == Decimal("0.097")
    assert table.rows[0].underlined == {2}
    assert [cell.convention.metric for cell in found] == ["l2", "l2", "min_l2", "min_l2", "ap"]
    assert found[0].convention.tolerance == Decimal("0.010")
    assert (found[1].table.place, found[1].row.title, found[1].column.title) == ("Table 1", "One I", "Hard L2")
    assert table.rows[0].values[2] is None
    assert table.rows[1].labels == ("Two", None)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("title: Results", "titel: Results", "table.*paper-1.*titel"),
        ("    place: Table 1\n", "", "table.*paper-1.*place"),
        ("0.1900, 1.000]", "0.1900]", "row 'Two -'.*2 values for 3"),
        ("labels: [Two, null]", "labels: [Two]", "row 'Two'.*1 labels for 2"),
        ("0.1040", "0.104o", "'All L2'.*'0.104o'"),
        ("0.1040", "–", "'–'"),
        ("0.1040", "-0.1040", "'-0.1040'"),
        ("0.1040", "1e-1", "'1e-1'"),
        ("0.1040", "0.104", "row 'One I'.*'All L2'.*0.104 has 3 decimals instead of 4"),
        ("1.000]", "1.040]", "'AP'.*1.040.*fraction"),
        ("convention: share", "convention: shares", "'shares'.*mean share"),
        ("{far: near}", "{far: nearer}", "rows 2.*'nearer'.*mean near"),
        ("{far: near}", "{near: far}", "row 'Two -'.*'near'.*far, share"),
        ("{far: near}", "{far: share}", "row 'Two -'.*share"),
        ("dataset: vat", "dataset: vta", "dataset.*'vta'.*mean vat"),
        ("method: one", "method: ones", "method.*'ones'.*mean one"),
        ("subset: all, convention: share", "subset: most, convention: share", "columns 3 subset"),
        ("tag: paper", "tag: hearsay", "tag"),
        ("underlined: [2]", "underlined: [3]", "row 'One I'.*underlined.*3"),
        ("underlined: [2]", "underlined: [0]", "row 'One I'.*underlined.*0"),
        ("group: Hard", "group: All", "column 'All L2'.*twice"),
        ("[Two, null], ", "[One, I], cite: 7, ", "row 'One I 7'.*twice"),
        ("place: Table 1", "place: Table 1\n    place: Table 2", "'place' twice"),
        ("values: [.0970", "values: .0970", "YAML"),
        ("tables:", "table:", "table"),
    ],
)
def test_mistakes_are_named(folder, old, new, named):
    assert old in PAPER
    (folder / "paper.yaml").write_text(PAPER.replace(old, new, 1))
    with pytest.raises(DataError, match=f"(?s)^{re.escape(str(folder / 'paper.yaml'))}: .*{named}"):
        load(folder)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("better: higher", "better: up", "share better"),
        ("unit: fraction", "unit: parsec", "share unit"),
        ("stated: not stated, ", "", "share stated"),
        ("metric: min_l2", "metric: ap", "'share'.*'near'.*normalised"),
        ("tolerance: 0.010", "tolerance: little", "far tolerance"),
        ("text: A share.", "text: A share., colour: red", "share colour"),
    ],
)
def test_mistakes_in_the_conventions_are_named(folder, old, new, named):
    assert old in WORDS
    (folder / CONVENTIONS).write_text(WORDS.replace(old, new, 1))
    with pytest.raises(DataError, match=f"^{re.escape(str(folder / CONVENTIONS))}: .*{named}"):
        load(folder)


def test_a_folder_needs_conventions_and_distinct_tables(folder):
    with pytest.raises(DataError, match=r"paper-2.*paper-1"):
        table_of(load(folder), "paper-2")
    (folder / "paper2.yaml").write_text(PAPER)
    with pytest.raises(DataError, match="paper-1"):
        load(folder)
    (folder / CONVENTIONS).unlink()
    with pytest.raises(DataError, match=re.escape(CONVENTIONS)):
        load(folder)


# Ours ----------------------------------------------------------------------------------------------------------


def test_the_shipped_folder_is_the_checkouts(tables):
    assert tables == load(FOLDER)
    assert {table.source.key for table in tables} >= {"hclora", "omnigf", "field"}


def test_every_word_of_the_conventions_is_used(tables):
    words, used = vocabulary(), [cell for table in tables for cell in table.cells()]
    assert {cell.convention.key for cell in used} == set(words.conventions)
    assert {cell.row.method for cell in used} == set(words.methods)
    assert {cell.column.dataset for cell in used} == set(words.datasets)
    assert {convention.unit for convention in words.conventions.values()} == set(UNITS)
    assert {"gazelle", "hclora", "center", "random", "one_annotator"} <= set(entries("methods")) & set(words.methods)


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("gazefollow", {"people_min_angle_over_30", "dice", "top5"}),
        ("vat", set()),
        ("childplay", set()),
        ("gazehoi", set()),
        ("gazefollow_semantic", set()),
        ("vsgaze", {"ap_sa_pp"}),  # shared attention by points has no published rule
    ],
)
def test_published_metrics_and_directions_are_the_protocols(tables, name, others):
    ours = {use.name: use for use in load_dataset(name).protocol.metrics}
    published = {cell.convention.metric: cell for cell in find(tables, dataset=name, subset=None)}
    assert published
    assert set(published) - set(ours) == others
    if name in ("gazefollow", "vat"):
        assert set(ours) - {"mean_angle", "text_l2"} <= set(published), "the paper of 2015 sees it from the eye"
    for metric in set(published) & set(ours):
        assert (published[metric].convention.better == "higher") == ours[metric].higher_is_better
    by_subset = {cell.convention.metric for cell in find(tables, dataset=name, subset="inconsistent")}
    assert all(ours[metric].subsets for metric in by_subset & set(ours))


def test_decoders_never_mix(tables):
    """Social scores by decoder and by post-processing, and written points and heatmaps, have different conventions."""
    by_decoder = {(cell.row.method, cell.printed.lstrip("0")) for cell in find(tables, metric="f1_lah")}
    assert by_decoder == {("mtgs", ".795"), ("omnigf", ".814")}
    assert len(find(tables, metric="f1_lah_pp")) == 5
    written = {cell.row.method for t in tables for cell in t.cells() if cell.convention.key == "l2-to-mean-text"}
    assert written == {"qwen3vl+zero-shot", "omnigf+language"}
    assert not find(tables, dataset="gazefollow", metric="avg_l2", method="recasens2015")


# Against the texts ---------------------------------------------------------------------------------------------


def plain(text):
    """Without arrows, marks, subscripts' braces and blanks."""
    return re.sub(r"\\uparrow|\\downarrow|[↑↓]|</?u>|[\s_{}]", "", text)


def tabbed(text, place):
    """Caption, two lines of headings and the rows of a table set with tabs."""
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(f"{place}: "))
    end = lines.index("", start + 2)
    grid = [line.split("\t") for line in lines[start + 2 : end]]
    return lines[start].removeprefix(f"{place}: "), grid[0], grid[1], grid[2:]


@pytest.mark.parametrize("name", ["hclora-1", "hclora-2", "hclora-3", "hclora-4"])
def test_hclora_to_the_digit(tables, texts, name):
    table = table_of(tables, name)
    caption, groups, headers, rows = tabbed(texts["hclora"], table.place)
    assert table.title == caption
    skip, group, columns = len(table.labels), "", []
    for above, header in zip(groups, headers, strict=True):
        group = above or group
        columns.append((plain(group), plain(header), above + header) if header else ("", plain(above), above))
    named = [header or group for group, header, _ in columns[:skip]]
    assert named == [plain(label) for label in table.labels]
    assert [(plain(column.group), plain(column.header)) for column in table.columns] == [c[:2] for c in columns[skip:]]
    for column, (_, _, arrow) in zip(table.columns, columns[skip:], strict=True):
        assert ("↑" in arrow or "uparrow" in arrow) == (column.convention.better == "higher"), column
        assert ("↓" in arrow or "downarrow" in arrow) == (column.convention.better == "lower"), column
        assert column.subset == (column.group or "All").lower()
    assert len(rows) == len(table.rows)
    for row, printed in zip(table.rows, rows, strict=True):
        shown = [str(label) for label in row.labels]
        shown[0] += f" [{row.cite}]" if row.cite else ""
        assert shown == printed[:skip]
        marked = [
            f"<u>{value}</u>" if position in row.underlined else value for position, value in enumerate(row.values, 1)
        ]
        assert marked == printed[skip:], row.title


def piped(text):
    """The rows of every table set with pipes, headings first; a row is its cells without the empty ones."""
    tables, lines = [], text.splitlines()
    for index, line in enumerate(lines):
        if line.startswith("|---"):
            end = next(after for after in range(index, len(lines)) if not lines[after].rstrip().endswith("|"))
            above = index
            while lines[above - 1].startswith("|"):
                above -= 1
            block = lines[above:index] + lines[index + 1 : end]
            tables.append([[cell.strip() for cell in line.split("|") if cell.strip()] for line in block])
    return tables


@pytest.mark.parametrize(("name", "position"), [("omnigf-1", 0), ("omnigf-2", 1), ("omnigf-5", 2), ("omnigf-6", 3)])
def test_omnigf_to_the_digit(tables, texts, name, position):
    table = table_of(tables, name)
    found = piped(texts["omnigf"])
    assert len(found) == 4, "the text carries other tables than it did"
    rows = [row for row in found[position] if row and re.fullmatch(r"\d\.\d+", row[-1])]
    rows += [row for row in found[position] if row and row[-1] == "–" and row not in rows]
    shown = []
    for row in table.rows:
        labels = [label for label in row.labels if label is not None]
        if row.cite:
            labels[0] += f" [{row.cite}]"
        shown.append([*labels, *("–" if value is None else value for value in row.values)])
    assert sorted(shown) == sorted(rows)
    order = [row for row in found[position] if row in shown]
    assert order == shown
    headings = " ".join(" ".join(row) for row in found[position] if row not in shown)
    for column in table.columns:
        # Table 6 lost the subscripts of its social scores.
        assert column.header.removesuffix(" LAH").removesuffix(" LAEO").removesuffix(" SA") in headings
        assert column.group in headings


def test_what_the_prose_alone_states(tables, texts):
    """Every quote is in the text, and every cell of a table made of quotes is in one."""
    quoting = [table for table in tables if table.quotes]
    assert [table.id for table in quoting] == ["hclora-fig7", "omnigf-3", "omnigf-4"]
    for table in quoting:
        text = " ".join(texts[table.source.key].split())
        for quote in table.quotes:
            assert quote in text
        for cell in table.cells():
            assert re.search(rf"(?<![\d.]){re.escape(cell.printed)}(?![\d.]*\d)", " ".join(table.quotes)), cell.printed
    assert table_of(tables, "hclora-fig7").title in texts["hclora"]


@pytest.mark.parametrize("name", NOTED)
def test_what_is_from_no_text_to_the_digit(tables, name):
    def values(cells):
        return [None if value == "-" else value for cell in cells for value in cell.split("/")]

    found = {row.title: list(row.values) for row in table_of(tables, name).rows}
    assert found == {row: values(cells) for row, cells in NOTED[name].items()}


def test_tolerances_are_those_of_two_quantities():
    tolerances = {key: convention.tolerance for key, convention in vocabulary().conventions.items()}
    known = {key: str(value) for key, value in tolerances.items() if value is not None}
    assert known == {"l2-to-mean": "0.006", "l2-min": "0.004"}


# Against themselves --------------------------------------------------------------------------------------------

GAINS = [
    # table, from row, to row, column, the change as printed
    ("hclora-1", "GazeLLE", "Ours (ViT-B)", "Inconsistent Avg. L2", "10.9%"),
    ("hclora-1", "GazeLLE", "Ours (ViT-B)", "Inconsistent Min. L2", "17.6%"),
    ("hclora-1", "GazeLLE", "Ours (ViT-B)", "Inconsistent Avg. Ang.", "14.7%"),
    ("hclora-1", "GazeLLE", "Ours (ViT-B)", "Inconsistent Min. Ang.", "32.8%"),
    ("omnigf-5", "Semgaze", "OmniGF (proposed)", "Recognition Acc@1", "23.8%"),
    ("omnigf-6", "MTGS ✓", "OmniGF (proposed) ✓", "F1 LAEO", "25.8%"),
    ("omnigf-6", "MTGS ✓", "OmniGF (proposed) ✓", "AP SA", "36.6%"),
]  # fmt: skip
BASE, OURS, HARD = "GazeLLE", "Ours (ViT-B)", "Inconsistent"
OMNI, THEIRS = "OmniGF (proposed)", "MTGS ✓"
SAID = [
    # table, what the text says, then row and column of each number in it
    ("hclora-2", "reduces L2 error from 0.1670 to 0.1513 and angular error from 24.21 to 18.34", [
        (BASE, f"{HARD} L2"), (OURS, f"{HARD} L2"), (BASE, f"{HARD} Ang."), (OURS, f"{HARD} Ang.")]),
    ("hclora-3", "reducing Avg. L2 from 0.1519 to 0.1383 and Min. Ang. from 7.22 to 5.72", [
        ("× ×", f"{HARD} A-L2"), ("✓ ×", f"{HARD} A-L2"), ("× ×", f"{HARD} M-Ang"), ("✓ ×", f"{HARD} M-Ang")]),
    ("hclora-3", "achieving 0.1353 Avg. L2 and 4.85 Min. Ang.", [("✓ ✓", f"{HARD} A-L2"), ("✓ ✓", f"{HARD} M-Ang")]),
    ("hclora-4", "improving AUC from 0.9303 to 0.9340, reducing Avg. L2 from 0.1383 to 0.1353, and reducing Min. Ang. "
     "from 5.72 to 4.85", [
        (row, f"{HARD} {metric}") for metric in ("AUC", "A-L2", "M-Ang")
        for row in ("w/o supervision", "Out-of-cone penalty")]),
    ("omnigf-1", "an exceptional Avg Dist. of 0.091 and a Min Dist. of 0.040, notably surpassing even the reported "
     "human performance baseline for Avg Dist. (0.096)", [
        (OMNI, "GazeFollow Avg Dist."), (OMNI, "GazeFollow Min Dist."), ("Human – –", "GazeFollow Avg Dist.")]),
    ("omnigf-1", "the lowest spatial error (Dist. 0.096) and highly competitive in/out prediction performance (AP "
     "0.923)", [(OMNI, "VideoAttentionTarget Dist."), (OMNI, "VideoAttentionTarget AP")]),
    ("omnigf-2", "very poor localization (0.340 Avg Dist.)", [("- - -", "Avg")]),
    ("omnigf-2", "language branch via LoRA significantly reduces this error (0.114)", [("✓ - -", "Avg")]),
    ("omnigf-2", "gaze branch for dense heatmap decoding proves suboptimal (0.167)", [("- ✓ -", "Avg")]),
    ("omnigf-2", "our dual-branch architecture overcomes these limitations (0.104)", [("✓ ✓ -", "Avg")]),
    ("omnigf-2", "our state-of-the-art performance (0.091 Avg Dist.)", [("✓ ✓ ✓", "Avg")]),
    ("omnigf-6", "improves from 0.590 to 0.742 (25.8%) on and from 0.576 to 0.787 (36.6%)", [
        (THEIRS, "F1 LAEO"), (f"{OMNI} ✓", "F1 LAEO"), (THEIRS, "AP SA"), (f"{OMNI} ✓", "AP SA")]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "before", "after", "column", "change"), GAINS)
def test_stated_gains_follow_from_the_rows(tables, name, before, after, column, change):
    old, new = number(tables, name, before, column), number(tables, name, after, column)
    assert (abs(new - old) / old * 100).quantize(Decimal("0.1"), ROUND_HALF_UP) == Decimal(change.removesuffix("%"))


@pytest.mark.parametrize(("name", "said", "places"), SAID)
def test_numbers_in_the_prose_are_the_rows(tables, name, said, places):
    stated = re.findall(r"\d+\.\d+(?![\d%])", said)
    assert stated == [str(number(tables, name, row, column)) for row, column in places]


def test_the_prose_says_so(texts):
    for name, *_, said in [*GAINS, *((name, said) for name, said, _ in SAID)]:
        assert said in " ".join(texts[name.split("-")[0]].replace("*", "").split()), said


def test_rows_that_return_are_the_same(tables):
    rows = {(table.id, row.title): row.values for table in tables for row in table.rows}
    assert rows["hclora-3", "× ×"] == rows["hclora-1", "GazeLLE"]
    assert rows["hclora-3", "✓ ✓"] == rows["hclora-1", "Ours (ViT-B)"] == rows["hclora-4", "Out-of-cone penalty"]
    assert rows["hclora-3", "✓ ×"] == rows["hclora-4", "w/o supervision"]
    assert rows["omnigf-2", "✓ ✓ ✓"] == rows["omnigf-1", "OmniGF (proposed) I ✓"][:2]


def test_sources_quote_each_other_rightly(tables):
    """What OmniGF and the field's notes both print of a method on a whole test set is the same number."""
    seen = {}
    for source in ("omnigf", "field"):
        for cell in find(tables, source=source):
            if cell.row.tag != "re-run":
                key = (cell.column.dataset, cell.convention.key, cell.row.method, cell.row.backbone)
                seen.setdefault(key, set()).add(cell.value)
    assert {key: values for key, values in seen.items() if len(values) > 1} == {}


def test_everybody_is_a_mixture_of_the_subsets(tables):
    """In Table 2 but for one row, which its notes name: so the share of consistent people is the same in all."""
    table, share, off = table_of(tables, "hclora-2"), Decimal("0.6133"), {}
    for row in table.rows:
        for metric in ("AUC", "L2", "Ang."):
            groups = ("All", "Consistent", "Inconsistent")
            every, easy, hard = (number(tables, table.id, row.title, f"{group} {metric}") for group in groups)
            unit = Decimal(1).scaleb(every.as_tuple().exponent)
            mixed = share * easy + (1 - share) * hard
            # What is printed and the mixture of what is printed are rounded by half a unit each at most.
            if abs(mixed - every) > unit:
                off.setdefault(row.title, []).append(str(mixed.quantize(unit, ROUND_HALF_UP)))
    assert list(off) == ["Chong et al."]
    assert noted(tables, "hclora-2", "Contradiction", " / ".join(off["Chong et al."]), "0.8628 / 0.1339 / 16.14")


def noted(tables, name, *parts):
    """One of the table's notes has all these parts."""
    return any(all(part in note for part in parts) for note in table_of(tables, name).notes)


def test_contradictions_are_noted_and_not_repaired(tables):
    def ordered(column):
        found = [cell for cell in table_of(tables, "hclora-2").cells() if cell.column.title == column]
        better = sorted(found, key=lambda cell: cell.value, reverse=found[0].convention.better == "higher")
        return [cell.row.title for cell in better]

    assert ordered("Inconsistent Ang.")[:2] == ["Sharingan", "Miao et al."]
    assert ordered("Inconsistent AUC")[0] == "GazeLLE + VPT"
    assert noted(tables, "hclora-2", "Contradiction", "16.34", "16.45", "0.9078")
    assert number(tables, "hclora-3", "✓ ×", "Consistent AUC") < number(tables, "hclora-3", "× ×", "Consistent AUC")
    assert noted(tables, "hclora-3", "Contradiction", "0.9689", "0.9677", "3.37")
    ours, theirs = (number(tables, "omnigf-5", row, "Localization GazeAcc") for row in (OMNI, "Semgaze"))
    assert (ours / theirs * 100 - 100).quantize(Decimal("0.1")) == Decimal("8.7")
    assert noted(tables, "omnigf-5", "Contradiction", "8.7%")
    implied = (number(tables, "omnigf-4", OMNI, "Acc@1") / Decimal("1.231")).quantize(Decimal("0.001"))
    assert noted(tables, "omnigf-4", str(implied))


def test_figures_and_the_contradictory_numbering_are_in_the_texts(tables, texts):
    for figure in figures():
        assert f"\n{figure.place}: " in texts[figure.source.key], figure.id
    assert any(note.startswith("Contradiction") for note in table_of(tables, "omnigf-2").source.notes)
    for said in ("on the ChildPlay dataset in Table 3", "on the GazeFollow dataset (Table 3)", "in Tables 5 and 5"):
        assert said in texts["omnigf"]
    assert not re.search(r"Tables? [24]\b", texts["omnigf"])


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("hclora-1", {"Inconsistent Avg. Ang."}),
        ("hclora-2", {"All Ang.", "Consistent AUC", "Inconsistent L2", "Inconsistent Ang.", "AP in/out"}),
    ],
)
def test_underlines_are_second_best_but_in_noted_columns(tables, name, without):
    bare = set()
    for place, column in enumerate(table_of(tables, name).columns, 1):
        found = [cell for cell in table_of(tables, name).cells() if cell.column == column]
        second = sorted({cell.value for cell in found}, reverse=column.convention.better == "higher")[1]
        marked = {cell.row.title for cell in found if place in cell.row.underlined}
        assert marked in (set(), {cell.row.title for cell in found if cell.value == second})
        if not marked:
            bare.add(column.title)
            assert all(cell.row.method != "hclora" for cell in found if cell.value == second)
    assert bare == without
    assert noted(tables, name, "Marks: ")
