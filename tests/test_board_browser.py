"""The pages in a browser, by real clicks and keys: headless Chromium, from files, without a network."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gazebench.engine.contract import small_config
from gazebench.engine.record import write_record
from gazebench.engine.registry import load_dataset
from gazebench.engine.run import Places, bench
from gazebench.report.board import refresh
from gazebench.report.run import show

ROOT = Path(__file__).resolve().parent.parent
WORLD = load_dataset("gazeworld")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("needs Chromium (apt-get install chromium)", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")
expect = sync_api.expect
expect.set_options(timeout=60_000)  # of a busy machine


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


def committed() -> list[dict]:
    """The records of GazeWorld that git knows (all there are, where there is no git); not those of runs made here."""
    folder = ROOT / "leaderboards" / "gazeworld"
    listed = subprocess.run(["git", "ls-files", "*.json"], cwd=folder, capture_output=True, text=True, check=False)
    paths = [folder / name for name in listed.stdout.split()] or sorted(folder.glob("*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(paths)]


def titles(trained: int = 0) -> int:
    """Rows of the committed records that trained so many parameters: the seeds of one code of a method are one."""
    records = [record for record in committed() if record["parameters"]["trained"] >= trained]
    return len({(record["method"]["title"], record["method"].get("source")) for record in records})


@pytest.fixture(scope="module")
def boards(tmp_path_factory):
    """The committed records, two of them with intervals, a smoke run better than all, and one of another family."""
    folder = tmp_path_factory.mktemp("browser")
    for record in committed():
        if record["method"]["name"] == "gazelle":
            for subsets in record["metrics"].values():
                for score in subsets.values():
                    score |= {"low": score["value"] * 0.97, "high": score["value"] * 1.04, "sources": 500}
        write_record(record, folder)
    record = next(record for record in committed() if record["method"]["name"] == "random")  # a baseline
    record |= {"run": "smoke1", "status": {"class": "smoke", "reasons": ["a limit on the number of images was set"]}}
    record["method"] |= {"title": "Too good", "family": "another family"}
    record["metrics"]["avg_l2"]["all"]["value"] = 0.0001
    write_record(record, folder)
    refresh(folder, "gazeworld", WORLD)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder with its full page."""
    folder = tmp_path_factory.mktemp("run")
    config = small_config("center", "gazeworld", "--dataset.test=16")
    outcome = bench(config, Places(folder / "runs", folder / "boards"))
    show(outcome, config)
    return outcome.folder


@pytest.fixture
def visit(browser):
    """Opens a page of a file in a browser of its own, offline; nothing may go wrong in it."""
    contexts, wrong = [], []

    def go(path, **options):
        context = browser.new_context(offline=True, **({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)  # of a busy machine
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(request.url))
        page.goto(path.as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert not wrong


def head(page, name):
    return page.locator(f"section.board:not([hidden]) th[data-name='{name}']")


def names(page):
    return page.locator("section.board:not([hidden]) tbody tr[data-kind] .name").all_inner_texts()


def column(page, name):
    """The values of a column as they stand, top to bottom; None where there is none."""
    cells = page.evaluate(
        """(name) => {
             const table = document.querySelector("section.board:not([hidden]) table");
             const at = [...table.tHead.rows[0].cells].findIndex((cell) => cell.dataset.name === name);
             const rows = [...table.tBodies[0].rows].filter((row) => row.dataset.kind);
             return rows.map((row) => row.cells[at].dataset.order);
           }""",
        name,
    )
    return [float(cell) if cell else None for cell in cells]


def test_a_click_sorts_the_right_way_first(visit, boards):
    page = visit(boards / "index.html")
    values = column(page, "avg_l2/all")
    assert values == sorted(values), "the headline, lower is better"
    expect(head(page, "avg_l2/all")).to_have_attribute("aria-sort", "ascending")
    for metric in ("auc/all", "ap/all"):
        head(page, metric).get_by_role("button").click()
        expect(head(page, metric)).to_have_attribute("aria-sort", "descending")
        values = column(page, metric)
        known = [value for value in values if value is not None]
        absent = [None] * (len(values) - len(known))
        assert values == sorted(known, reverse=True) + absent, "higher is better: the best first, absent ones last"
        assert head(page, "avg_l2/all").get_attribute("aria-sort") is None
        head(page, metric).get_by_role("button").click()
        expect(head(page, metric)).to_have_attribute("aria-sort", "ascending")
        assert column(page, metric) == sorted(known) + absent, "in either direction"
    head(page, "method").get_by_role("button").click()
    expect(head(page, "method")).to_have_attribute("aria-sort", "ascending")
    assert names(page) == sorted(names(page), key=str.lower)


def test_keys_do_what_clicks_do(visit, boards):
    page = visit(boards / "index.html")
    button = head(page, "min_l2/all").get_by_role("button")
    button.focus()
    page.keyboard.press("Enter")
    expect(head(page, "min_l2/all")).to_have_attribute("aria-sort", "ascending")
    page.keyboard.press("Space")
    expect(head(page, "min_l2/all")).to_have_attribute("aria-sort", "descending")
    assert button.evaluate("(node) => node === document.activeElement"), "the focus stays where it is"
    page.keyboard.press("Tab")
    focused = page.locator(":focus")
    assert focused.evaluate("(node) => getComputedStyle(node).outlineStyle") == "solid"
    assert focused.evaluate("(node) => node.closest('th').dataset.name") == "mean_l2/all", "the next header, visibly"
    page.locator("#search").focus()
    page.keyboard.type("adaptation-free nonsense")
    assert "No row passes the filters" in page.locator("section.board:not([hidden])").inner_text()
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    assert len(names(page)) == titles()


def test_smoke_runs_never_look_like_results(visit, boards):
    page = visit(boards / "index.html")
    assert "Too good" not in names(page)
    assert "1 smoke run not shown" in page.locator("#shown").inner_text()
    page.get_by_label("smoke run").check()
    assert names(page)[-1] == "Too good", "the best value of all, and still last"
    head(page, "avg_l2/all").get_by_role("button").click()
    expect(head(page, "avg_l2/all")).to_have_attribute("aria-sort", "descending")
    assert names(page)[-1] == "Too good", "in either direction"
    row = page.locator("tr.smoke")
    assert "smoke run" in row.inner_text()
    groups = page.locator("section.board:not([hidden]) .dtrg-group").all_inner_texts()
    assert [text.split(":")[0] for text in groups] == ["Complete runs on synthetic data", "Smoke runs"]
    page.get_by_label("synthetic", exact=True).uncheck()
    assert names(page) == ["Too good"]
    assert page.locator("#chart circle").count() == 0, "a baseline costs nothing"
    page.locator("#plot-cost").select_option("test")
    hollow = page.locator("#chart circle").evaluate("(dot) => getComputedStyle(dot.closest('g[fill]')).fill")
    assert hollow == page.evaluate("() => getComputedStyle(document.querySelector('.scroll')).backgroundColor")


def test_filters_and_search(visit, boards):
    page = visit(boards / "index.html")
    page.get_by_label("Method family").select_option("baseline")
    assert set(names(page)) == {"Centre", "Random", "Mean target", "One annotator"}
    page.get_by_label("Method family").select_option("")
    page.get_by_label("Search").fill("lora")
    assert names(page)
    assert all("lora" in name.lower() for name in names(page) if "+ VPT" not in name and "+ FT" not in name)
    page.get_by_label("Search").fill("")
    page.get_by_label("inconsistent", exact=True).check()
    assert head(page, "avg_l2/all").count() == 0
    values = column(page, "avg_l2/inconsistent")
    assert values == sorted(values), "sorted by the same metric, of the subset"
    page.get_by_label("side by side").check()
    assert head(page, "avg_l2/all").is_visible()
    assert head(page, "avg_l2/consistent").is_visible()
    page.locator("#dataset").select_option("vat")
    assert page.locator("#board-vat").is_visible()
    assert not page.locator("#board-gazeworld").is_visible()
    rows = page.locator("#board-vat tbody tr[data-kind]")
    assert set(rows.evaluate_all("(rows) => rows.map((row) => row.dataset.kind)")) == {"published"}
    assert page.url.endswith("#vat")
    assert visit(boards / "index.html").locator("#board-gazeworld").is_visible()


def test_intervals_and_provenance_are_there(visit, boards):
    page = visit(boards / "index.html")
    row = page.locator("tr[data-kind]").filter(has=page.get_by_role("link", name="Gaze-LLE", exact=True))
    assert row.count() == 1, "all seeds are one row"
    assert "±" in row.inner_text()
    row.get_by_text("about").click()
    about = row.locator("details").inner_text()
    for told in ("licence", "recipe", "weights", "seed 0", "seed 1"):
        assert told in about
    row.get_by_role("link", name="seed 1").click()
    page.wait_for_url("**/gazelle-*.html")
    assert "Gaze-LLE" in page.locator("h1").inner_text()
    assert re.search(r"0\.\d{4} to 0\.\d{4}", page.locator("section").first.inner_text())
    page.get_by_role("link", name="gazebench leaderboards").click()
    page.wait_for_url("**/index.html#gazeworld")
    assert page.locator("#board-gazeworld").is_visible()


def test_the_plot_follows_the_filters(visit, boards):
    page = visit(boards / "index.html")
    dots = page.locator("#chart circle")
    before = dots.count()
    assert before == titles(trained=1), "what costs nothing is a line"
    assert page.locator("#chart a").count() == before
    page.get_by_label("Method family").select_option("frozen foundation model")
    assert dots.count() == 1
    page.get_by_label("Method family").select_option("")
    page.locator("#plot-cost").select_option("test")
    assert dots.count() == titles(), "every run takes time"
    page.locator("#plot-metric").select_option("auc")
    assert "auc" in page.locator("#chart").inner_text()
    assert "higher is better" in page.locator("#chart").inner_text()
    page.locator("#chart a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/gazeworld/*.html")


@pytest.mark.parametrize("system", ["light", "dark"])
def test_themes(visit, boards, system):
    page = visit(boards / "index.html", color_scheme=system)
    colour = "() => getComputedStyle(document.body).backgroundColor"
    first = page.evaluate(colour)
    assert (sum(map(int, re.findall(r"\d+", first)[:3])) > 600) == (system == "light")
    other = "dark" if system == "light" else "light"
    page.get_by_role("button", name=f"{other} theme").click()
    assert page.evaluate(colour) != first
    assert page.locator("html").get_attribute("data-theme") == other
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == other, "remembered"


def test_narrow_screens(visit, boards, run):
    for path in (boards / "index.html", next((boards / "gazeworld").glob("hclora-*.html")), run / "report.html"):
        page = visit(path, viewport={"width": 375, "height": 740})
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 375, "tables scroll, not the page"
    page = visit(boards / "index.html", viewport={"width": 375, "height": 740})
    page.locator("section.board:not([hidden]) .scroll").evaluate("(node) => { node.scrollLeft = 400; }")
    box = page.locator("tr[data-kind] th.method").first.bounding_box()
    assert box["x"] >= 0, "the name of the method stays"
    small = page.locator("button:visible, select:visible").evaluate_all(
        "(nodes) => nodes.filter((node) => node.getBoundingClientRect().height < 24).length"
    )
    assert small == 0, "large enough for a finger"


def test_a_report_page(visit, run):
    page = visit(run / "report.html")
    cards = page.locator("#gallery li")
    shown = page.locator("#gallery li:visible")
    everybody = cards.count()
    assert everybody == shown.count() > 4
    page.locator("#gallery-subset").select_option("inconsistent")
    assert 0 < shown.count() < everybody
    assert set(shown.evaluate_all("(nodes) => nodes.map((node) => node.dataset.subset)")) == {"inconsistent"}
    page.locator("#gallery-subset").select_option("")
    page.locator("#gallery-error").select_option("largest tenth")
    assert set(shown.evaluate_all("(nodes) => nodes.map((node) => node.dataset.band)")) == {"largest tenth"}
    page.locator("#gallery-error").select_option("")
    ranks = "(nodes) => nodes.map((node) => node.dataset.rank).filter((rank) => rank !== undefined).map(Number)"
    assert shown.evaluate_all(ranks) == sorted(shown.evaluate_all(ranks))
    page.locator("#gallery-order").select_option("best first")
    assert shown.evaluate_all(ranks) == sorted(shown.evaluate_all(ranks), reverse=True)
    image = page.locator("#gallery img").first
    image.scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('#gallery img').naturalWidth > 100")
    page.get_by_text("The other", exact=False).click()
    assert page.get_by_text("trainer.max_epochs").is_visible()
    page.get_by_role("link", name="gazebench leaderboards").click()
    expect(page.get_by_label("smoke run")).to_be_checked()  # there are no others
    page.locator("tr[data-kind] a.name").first.click()
    page.wait_for_url("**/report.html")  # the board of this machine leads to the full page
