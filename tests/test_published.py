"""Published numbers: what a file may say, and every cell against the texts they were taken from.

The texts' tables are read here by other code than the files', so that a slip in either is found.
"""

import re
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest

from gazebench.core.errors import DataError
from gazebench.engine.registry import entries, load_dataset
from gazebench.metrics.protocol import QUESTIONS
from gazebench.report.published import CONVENTIONS, UNITS, cells, figures, find, load, table_of, vocabulary

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "leaderboards" / "published"
SHARED = ROOT.parent / "shared"
TEXTS = {
    "hclora": SHARED / "papers" / "hclora.txt",
    "omnigf": SHARED / "papers" / "omnigf.txt",
    "field": SHARED / "PROTOCOLS.md",
}


@pytest.fixture(scope="module")
def tables():
    return load()


@pytest.fixture(scope="module")
def texts():
    missing = [str(path.relative_to(SHARED.parent)) for path in TEXTS.values() if not path.is_file()]
    if missing:
        pytest.skip(f"the papers' texts are not beside this checkout: {', '.join(missing)}")
    return {key: path.read_text(encoding="utf-8") for key, path in TEXTS.items()}


def number(tables, name, row, column):
    """The value in a row and a column, both by their titles (or a row by its beginning)."""
    [found] = [
        cell
        for cell in cells(table_of(tables, name))
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
    found = list(cells(table))
    assert [cell.printed for cell in found] == ["0.1040", "0.2000", ".0970", "0.1900", "1.000"]
    assert str(found[0].value) == "0.1040"
    assert found[2].value == Decimal("0.097")
    assert [cell.underlined for cell in found] == [False, True, False, False, False]
    assert [cell.convention.metric for cell in found] == ["l2", "l2", "min_l2", "min_l2", "ap"]
    assert found[0].convention.tolerance == Decimal("0.010")
    assert found[1].where == "paper, Table 1, row 'One I', column 'Hard L2'"
    assert table.rows[0].values[2] is None
    assert table.rows[1].labels == ("Two", None)


def test_finding(folder):
    tables = load(folder)
    assert [cell.printed for cell in find(tables, metric="l2")] == ["0.1040"]
    assert [cell.printed for cell in find(tables, metric="l2", subset=None)] == ["0.1040", "0.2000"]
    assert [cell.printed for cell in find(tables, method="two+x", metric="ap", dataset="vat")] == ["1.000"]
    assert find(tables, source="nobody") == []
    assert find(tables, tag="re-run") == []
    with pytest.raises(DataError, match=r"no published table 'paper-2'; there are paper-1"):
        table_of(tables, "paper-2")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title: Results", "titel: Results", "table 'paper-1': unknown field titel; there are id, place, title"),
        ("    place: Table 1\n", "", "table 'paper-1': 'place' is a required property"),
        ("0.1900, 1.000]", "0.1900]", "row 'Two -': 2 values for 3 columns; null stands for a missing one"),
        ("labels: [Two, null]", "labels: [Two]", "row 'Two': 1 label(s) for 2 (Method, Input)"),
        ("0.1040", "0.104o", "column 'All L2': '0.104o' is no number; write what is printed, or null"),
        ("0.1040", "–", "'–' is no number"),
        ("0.1040", "-0.1040", "'-0.1040' is no number"),
        ("0.1040", "1e-1", "'1e-1' is no number"),
        ("0.1040", "0.104", "row 'One I': column 'All L2': 0.104 has 3 decimals instead of 4; compare it with the"),
        ("1.000]", "1.040]", "column 'AP': 1.040 is more than fraction can be (1); compare it with the source"),
        ("convention: share", "convention: shares", "column 'AP': convention: no 'shares'; did you mean share?"),
        ("{far: near}", "{far: nearer}", "row 'Two -': conventions: no 'nearer'; did you mean near?"),
        ("{far: near}", "{near: far}", "row 'Two -': conventions: no column has 'near'; they have far, share"),
        ("{far: near}", "{far: share}", "share has another unit or direction than its column's far"),
        ("dataset: vat", "dataset: vta", "dataset: no 'vta'; did you mean vat?"),
        ("method: one", "method: ones", "row 'One I': method: no 'ones'; did you mean one?"),
        ("subset: all, convention: share", "subset: most, convention: share", "column 3, subset: 'most' is not one of"),
        ("tag: paper", "tag: hearsay", "tag: 'hearsay' is not one of"),
        ("underlined: [2]", "underlined: [3]", "row 'One I': underlined: there is no value 3; values count from 1"),
        ("underlined: [2]", "underlined: [0]", "underlined: there is no value 0"),
        ("group: Hard", "group: All", "column 'All L2' is there twice; delete one, or tell them apart by `group`"),
        ("[Two, null], ", "[One, I], cite: 7, ", "row 'One I 7' is there twice"),
        ("place: Table 1", "place: Table 1\n    place: Table 2", "key 'place' twice"),
        ("values: [.0970", "values: .0970", "not YAML"),
        ("tables:", "table:", "top level"),
    ],
)
def test_mistakes_are_named(folder, old, new, message):
    assert old in PAPER
    (folder / "paper.yaml").write_text(PAPER.replace(old, new, 1))
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        load(folder)
    assert str(caught.value).startswith(f"{folder / 'paper.yaml'}: ")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("better: higher", "better: up", "conventions, share, better: 'up' is not one of ['higher', 'lower']"),
        ("unit: fraction", "unit: parsec", "conventions, share, unit: 'parsec' is not one of"),
        ("stated: not stated, ", "", "conventions, share: 'stated' is a required property"),
        ("metric: min_l2", "metric: ap", "convention 'share': by 'near', ap is in normalised and lower is better"),
        ("tolerance: 0.010", "tolerance: little", "conventions, far, tolerance"),
        ("text: A share.", "text: A share., colour: red", "conventions, share: unknown field colour"),
    ],
)
def test_mistakes_in_the_conventions_are_named(folder, old, new, message):
    assert old in WORDS
    (folder / CONVENTIONS).write_text(WORDS.replace(old, new, 1))
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        load(folder)
    assert str(caught.value).startswith(f"{folder / CONVENTIONS}: ")


def test_a_folder_needs_conventions_and_distinct_tables(folder):
    (folder / "paper2.yaml").write_text(PAPER)
    with pytest.raises(DataError, match=r"paper2\.yaml: table 'paper-1': paper\.yaml has a table of that id"):
        load(folder)
    (folder / CONVENTIONS).unlink()
    with pytest.raises(DataError, match=r"conventions\.yaml: no such file"):
        load(folder)


# Ours ----------------------------------------------------------------------------------------------------------


def test_the_shipped_folder_is_the_checkouts(tables):
    assert tables == load(FOLDER)
    assert {table.file for table in tables} >= {"hclora.yaml", "omnigf.yaml", "field.yaml"}


def test_every_word_of_the_conventions_is_used(tables):
    words = vocabulary()
    used = [cell for table in tables for cell in cells(table)]
    assert {cell.convention.key for cell in used} == set(words.conventions)
    assert {cell.row.method for cell in used} == set(words.methods)
    assert {cell.column.dataset for cell in used} == set(words.datasets)
    assert {convention.unit for convention in words.conventions.values()} == set(UNITS)


@pytest.mark.parametrize("name", ["gazefollow", "vat"])
def test_metrics_and_directions_are_the_protocols(tables, name):
    protocol = load_dataset(name).protocol
    ours = {use.name: use for use in protocol.metrics}
    published = {cell.convention.metric: cell for cell in find(tables, dataset=name, subset=None)}
    assert set(published) - set(ours) <= {"people_min_angle_over_30", "dice", "top5"}
    assert set(ours) - {use.name for use in QUESTIONS} <= set(published), "but for questions, which are ours"
    for metric in set(published) & set(ours):
        assert (published[metric].convention.better == "higher") == protocol.higher_is_better(metric)
    subsets = find(tables, dataset=name, subset="inconsistent")
    assert all(ours[cell.convention.metric].subsets for cell in subsets)


@pytest.mark.parametrize("name", ["childplay", "gazehoi", "gazefollow_semantic", "vsgaze"])
def test_published_metrics_have_the_protocols_names(tables, name):
    """Where a protocol has more columns than the papers print; shared attention by points has no published rule."""
    protocol = load_dataset(name).protocol
    published = {cell.convention.metric: cell for cell in find(tables, dataset=name, subset=None)}
    assert published
    assert set(published) - {use.name for use in protocol.metrics} == ({"ap_sa_pp"} if name == "vsgaze" else set())
    for metric in set(published) - {"ap_sa_pp"}:
        assert (published[metric].convention.better == "higher") == protocol.higher_is_better(metric)


def test_methods_of_the_registry_have_its_names():
    assert {"gazelle", "hclora", "center", "random", "one_annotator"} <= set(entries("methods")) & set(
        vocabulary().methods
    )


def test_decoders_never_mix(tables):
    """Social scores by decoder and by post-processing, and written points and heatmaps, have different conventions."""
    by_decoder = {(cell.row.method, cell.printed.lstrip("0")) for cell in find(tables, metric="f1_lah")}
    assert by_decoder == {("mtgs", ".795"), ("omnigf", ".814")}
    assert len(find(tables, metric="f1_lah_pp")) == 5
    written = {cell.row.method for t in tables for cell in cells(t) if cell.convention.key == "l2-to-mean-text"}
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
            f"<u>{value}</u>" if position in row.underlined else value for position, value in enumerate(row.values)
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
        for cell in cells(table):
            assert re.search(rf"(?<![\d.]){re.escape(cell.printed)}(?![\d.]*\d)", " ".join(table.quotes)), cell.where
    assert table_of(tables, "hclora-fig7").title in texts["hclora"]


def slashed(text):
    """The values of ``.957/.103/.045``; a dash is a missing one."""
    return [None if value == "-" else value for value in re.findall(r"(?<![\w.])(?:\.\d+|-)(?![\w.])", text)]


def section(text, heading):
    return text.split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]


def test_the_fields_main_table_to_the_digit(tables, texts):
    lines = [line for line in section(texts["field"], "9.").splitlines() if line.startswith("| ")][1:]
    rows = {}
    for line in lines:
        if not line.startswith("| ---"):
            name, *groups = [cell.strip() for cell in line.strip("|").split("|")]
            rows[name] = groups
    reruns = rows.pop("Gaze-LLE B, two independent re-runs")
    table = table_of(tables, "field-main")
    assert [row.title for row in table.rows] == list(rows)
    for row in table.rows:
        printed = []
        for group, width in zip(rows[row.title], (3, 3, 4), strict=True):
            values = slashed(group.split("(")[0])
            assert len(values) in (0, 2, 3, 4), group
            printed += values + [None] * (width - len(values))
        assert list(row.values) == printed, row.title
    both = [slashed(run) for run in reruns[0].split(";")]
    assert [list(row.values) for row in table_of(tables, "field-reruns").rows] == [
        both[0] + [None] * 3,
        both[1] + [None] * 3,
        [None] * 3 + slashed(reruns[1]),
    ]
    dice, top = re.search(r"\(Dice (\S+), top-5 (\S+)%\)", rows["GazeSeg"][0]).groups()
    assert table_of(tables, "field-gazeseg").rows[0].values == (dice, top)


def test_the_fields_sentences_to_the_digit(tables, texts):
    text = " ".join(section(texts["field"], "9.").split())

    def rows(name):
        return [list(row.values) for row in table_of(tables, name).rows]

    found = re.search(r"B / L: VAT (\S+), (\S+); GOO-Real (\S+), (\S+)\.", text).groups()
    vat_b, vat_l, goo_b, goo_l = map(slashed, found)
    assert rows("field-zero-shot") == [vat_b + goo_b, vat_l + goo_l]
    decoder, processed = re.search(r"VSGaze \(Dist/AP/LAH/LAEO/SA\), decoder: (.*?)\. With PP: (.*?)\. ", text).groups()
    assert rows("field-vsgaze-decoder") == [slashed(part) for part in decoder.split(";")]
    assert rows("field-vsgaze-pp") == [slashed(part) for part in processed.split(";")]
    avg, least = re.search(r"on GazeFollow: about (\S+) Avg L2 and (\S+) Min L2", text).groups()
    conventions = vocabulary().conventions
    assert conventions["l2-to-mean"].tolerance == Decimal(avg)
    assert conventions["l2-min"].tolerance == Decimal(least)
    assert sum(convention.tolerance is not None for convention in conventions.values()) == 2


def test_the_baselines_of_2015_to_the_digit(tables, texts):
    text = section(texts["field"], "1.")
    auc = re.search(r"The published centre AUC (\.\d+)", text).group(1)
    for row in table_of(tables, "field-2015").rows:
        line = next(line for line in text.splitlines() if line.startswith(f"| {row.title} |"))
        printed = [value.strip() for value in line.strip("|").split("|")[-1].split("/")]
        assert list(row.values) == [auc if row.method == "center" else None, *printed]


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
STEPS = [
    # table, what the text says, then (row, column, number said) each
    ("hclora-2", "reduces L2 error from 0.1670 to 0.1513 and angular error from 24.21 to 18.34", [
        ("GazeLLE", "Inconsistent L2", "0.1670"), ("Ours (ViT-B)", "Inconsistent L2", "0.1513"),
        ("GazeLLE", "Inconsistent Ang.", "24.21"), ("Ours (ViT-B)", "Inconsistent Ang.", "18.34")]),
    ("hclora-3", "reducing Avg. L2 from 0.1519 to 0.1383 and Min. Ang. from 7.22 to 5.72", [
        ("× ×", "Inconsistent A-L2", "0.1519"), ("✓ ×", "Inconsistent A-L2", "0.1383"),
        ("× ×", "Inconsistent M-Ang", "7.22"), ("✓ ×", "Inconsistent M-Ang", "5.72")]),
    ("hclora-3", "achieving 0.1353 Avg. L2 and 4.85 Min. Ang.", [
        ("✓ ✓", "Inconsistent A-L2", "0.1353"), ("✓ ✓", "Inconsistent M-Ang", "4.85")]),
    ("hclora-4", "improving AUC from 0.9303 to 0.9340, reducing Avg. L2 from 0.1383 to 0.1353, and reducing Min. Ang. "
     "from 5.72 to 4.85", [
        ("w/o supervision", "Inconsistent AUC", "0.9303"), ("Out-of-cone penalty", "Inconsistent AUC", "0.9340"),
        ("w/o supervision", "Inconsistent A-L2", "0.1383"), ("Out-of-cone penalty", "Inconsistent A-L2", "0.1353"),
        ("w/o supervision", "Inconsistent M-Ang", "5.72"), ("Out-of-cone penalty", "Inconsistent M-Ang", "4.85")]),
    ("omnigf-1", "an exceptional Avg Dist. of 0.091 and a Min Dist. of 0.040, notably surpassing even the reported "
     "human performance baseline for Avg Dist. (0.096)", [
        ("OmniGF (proposed)", "GazeFollow Avg Dist.", "0.091"), ("OmniGF (proposed)", "GazeFollow Min Dist.", "0.040"),
        ("Human – –", "GazeFollow Avg Dist.", "0.096")]),
    ("omnigf-1", "the lowest spatial error (Dist. 0.096) and highly competitive in/out prediction performance (AP "
     "0.923)", [
        ("OmniGF (proposed)", "VideoAttentionTarget Dist.", "0.096"),
        ("OmniGF (proposed)", "VideoAttentionTarget AP", "0.923")]),
    ("omnigf-2", "very poor localization (0.340 Avg Dist.)", [("- - -", "Avg", "0.340")]),
    ("omnigf-2", "language branch via LoRA significantly reduces this error (0.114)", [("✓ - -", "Avg", "0.114")]),
    ("omnigf-2", "gaze branch for dense heatmap decoding proves suboptimal (0.167)", [("- ✓ -", "Avg", "0.167")]),
    ("omnigf-2", "our dual-branch architecture overcomes these limitations (0.104)", [("✓ ✓ -", "Avg", "0.104")]),
    ("omnigf-2", "our state-of-the-art performance (0.091 Avg Dist.)", [("✓ ✓ ✓", "Avg", "0.091")]),
    ("omnigf-6", "improves from 0.590 to 0.742 (25.8%) on and from 0.576 to 0.787 (36.6%)", [
        ("MTGS ✓", "F1 LAEO", "0.590"), ("OmniGF (proposed) ✓", "F1 LAEO", "0.742"),
        ("MTGS ✓", "AP SA", "0.576"), ("OmniGF (proposed) ✓", "AP SA", "0.787")]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "before", "after", "column", "change"), GAINS)
def test_stated_gains_follow_from_the_rows(tables, name, before, after, column, change):
    old, new = number(tables, name, before, column), number(tables, name, after, column)
    assert (abs(new - old) / old * 100).quantize(Decimal("0.1"), ROUND_HALF_UP) == Decimal(change.removesuffix("%"))


def test_stated_gains_are_stated(texts):
    for name, *_, change in GAINS:
        assert change in texts[name.split("-")[0]]


@pytest.mark.parametrize(("name", "said", "values"), STEPS)
def test_numbers_in_the_prose_are_the_rows(tables, name, said, values):
    for row, column, stated in values:
        assert str(number(tables, name, row, column)) == stated
        assert stated in said


def test_the_prose_says_so(texts):
    for name, said, _ in STEPS:
        assert said in " ".join(texts[name.split("-")[0]].replace("*", "").split()), said


def test_omnigf_over_sharingan(tables):
    column = "GazeFollow Avg Dist."
    gain = number(tables, "omnigf-1", "Sharingan", column) - number(tables, "omnigf-1", "OmniGF (proposed)", column)
    assert gain == Decimal("0.022")


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
    table = table_of(tables, "hclora-2")
    share = Decimal("0.6133")
    off = {}
    for row in table.rows:
        for metric in ("AUC", "L2", "Ang."):
            every, consistent, inconsistent = (
                number(tables, table.id, row.title, f"{group} {metric}")
                for group in ("All", "Consistent", "Inconsistent")
            )
            unit = Decimal(1).scaleb(every.as_tuple().exponent)
            mixed = share * consistent + (1 - share) * inconsistent
            # What is printed and the mixture of what is printed are rounded by half a unit each at most.
            if abs(mixed - every) > unit:
                off.setdefault(row.title, []).append(mixed.quantize(unit, ROUND_HALF_UP))
    assert list(off) == ["Chong et al."]
    [note] = [note for note in table.notes if "same mixture" in note]
    assert note.startswith("Contradiction: ")
    assert " / ".join(map(str, off["Chong et al."])) in note
    assert "0.8628 / 0.1339 / 16.14" in note
    assert "table's notes" in table.rows[0].note


def best(tables, name, column):
    found = [cell for cell in cells(table_of(tables, name)) if cell.column.title == column]
    ordered = sorted(found, key=lambda cell: cell.value, reverse=found[0].convention.better == "higher")
    return [cell.row.title for cell in ordered]


def noted(tables, name, *parts):
    """One of the table's notes has all these parts."""
    return any(all(part in note for part in parts) for note in table_of(tables, name).notes)


def test_contradictions_are_noted_and_not_repaired(tables):
    assert best(tables, "hclora-2", "Inconsistent Ang.")[:2] == ["Sharingan", "Miao et al."]
    assert best(tables, "hclora-2", "Inconsistent AUC")[0] == "GazeLLE + VPT"
    assert noted(tables, "hclora-2", "Contradiction", "16.34", "16.45", "0.9078")

    alone = [number(tables, "hclora-3", row, "Consistent AUC") for row in ("× ×", "✓ ×")]
    assert alone[1] < alone[0]
    assert noted(tables, "hclora-3", "Contradiction", "0.9689 to 0.9677", "3.37")

    gain = number(tables, "omnigf-5", "OmniGF (proposed)", "Localization GazeAcc") / number(
        tables, "omnigf-5", "Semgaze", "Localization GazeAcc"
    )
    assert (gain * 100 - 100).quantize(Decimal("0.1")) == Decimal("8.7")
    assert noted(tables, "omnigf-5", "Contradiction", "8.7%")

    numbering = next(note for note in table_of(tables, "omnigf-2").source.notes if note.startswith("Contradiction"))
    assert "Tables 5 and 5" in numbering
    implied = (number(tables, "omnigf-4", "OmniGF (proposed)", "Acc@1") / Decimal("1.231")).quantize(Decimal("0.001"))
    assert noted(tables, "omnigf-4", str(implied))


def test_figures_are_figures_of_their_papers(texts):
    for figure in figures():
        assert f"\n{figure.place}: " in texts[figure.source.key], figure.id


def test_the_contradictory_numbering_is_in_the_text(texts):
    for said in ("on the ChildPlay dataset in Table 3", "on the GazeFollow dataset (Table 3)", "in Tables 5 and 5"):
        assert said in texts["omnigf"]
    assert not re.search(r"Tables? [24]\b", texts["omnigf"])


def test_underlines_are_second_best_where_there_are_any(tables):
    """And the columns without one are the notes'."""
    for name, without in [
        ("hclora-1", {"Inconsistent Avg. Ang."}),
        ("hclora-2", {"All Ang.", "Consistent AUC", "Inconsistent L2", "Inconsistent Ang.", "AP in/out"}),
    ]:
        table = table_of(tables, name)
        bare = set()
        for column in table.columns:
            found = [cell for cell in cells(table) if cell.column == column]
            values = sorted({cell.value for cell in found}, reverse=column.convention.better == "higher")
            marked = {cell.row.title for cell in found if cell.underlined}
            if marked:
                assert marked == {cell.row.title for cell in found if cell.value == values[1]}
            else:
                bare.add(column.title)
                assert all(cell.row.method != "hclora" for cell in found if cell.value == values[1])
        assert bare == without
        assert noted(tables, name, "Marks: ")
