"""What only a browser can show: pages in headless Chromium, by real clicks and keys, from files, without a network."""

import json
import re
import shutil
import subprocess

import pytest

from gazebench.engine.contract import small_config
from gazebench.engine.record import read_files, write_record
from gazebench.engine.run import BOARDS, Places, bench
from gazebench.report import site
from gazebench.report.board_rows import group_runs
from gazebench.report.run import show

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("needs Chromium (apt-get install chromium)", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")
expect = sync_api.expect
expect.set_options(timeout=60_000)  # of a busy machine

SHOWN = "section.board:not([hidden])"


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def groups():
    """The committed records of GazeWorld, seeds of one configuration together; not those of runs made beside them."""
    listed = subprocess.run(["git", "ls-files", "gazeworld"], cwd=BOARDS, capture_output=True, text=True).stdout
    records = {name: record for name, record in read_files(BOARDS, "gazeworld").items() if f"{name}.json" in listed}
    return group_runs({record["run"]: record for record in records.values()})


@pytest.fixture(scope="module")
def board(tmp_path_factory, groups):
    """The page of the committed records, and of a smoke run that is better than all."""
    folder = tmp_path_factory.mktemp("browser")
    for record in (record for group in groups for record in group.records.values()):
        write_record(record, folder)
    record = json.loads(json.dumps(next(group.lead for group in groups if group.lead["method"]["name"] == "random")))
    record |= {"run": "smoke1", "status": {"class": "smoke", "reasons": ["a limit on the number of images was set"]}}
    record["method"] |= {"title": "Too good", "family": "another family"}
    record["metrics"]["avg_l2"]["all"]["value"] = 0.0001
    write_record(record, folder)
    return site.build(folder, folder)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The page of a run."""
    folder = tmp_path_factory.mktemp("run")
    places = Places(folder / "runs", folder / "boards")
    config = small_config("center", "gazeworld", "--dataset.test=16")
    outcome = bench(config, places)
    show(outcome, config, places)
    return outcome.folder / "report.html"


@pytest.fixture
def visit(browser):
    """Opens a page of a file in a browser of its own, offline; nothing may go wrong in it."""
    contexts, wrong = [], []

    def go(path, **options):
        context = browser.new_context(offline=True, **({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)  # of a busy machine
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(request.url))
        page.goto(path.as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert not wrong


def head(page, name):
    return page.locator(f"{SHOWN} th[data-name='{name}']")


def names(page):
    return page.locator(f"{SHOWN} tbody tr[data-kind] .name").all_inner_texts()


def column(page, name):
    """The values of a column as they stand, top to bottom; None where there is none."""
    cells = page.evaluate(
        """([shown, name]) => {
             const table = document.querySelector(`${shown} table`);
             const at = [...table.tHead.rows[0].cells].findIndex((cell) => cell.dataset.name === name);
             const rows = [...table.tBodies[0].rows].filter((row) => row.dataset.kind);
             return rows.map((row) => row.cells[at].dataset.order);
           }""",
        [SHOWN, name],
    )
    return [float(cell) if cell else None for cell in cells]


def test_sorting_by_clicks_and_keys(visit, board):
    page = visit(board)
    page.get_by_label("Method family").select_option("adapted foundation model")  # one section: all are ranked
    values = column(page, "avg_l2/all")
    assert values == sorted(values), "the headline, lower is better"
    head(page, "ap/all").get_by_role("button").click()
    expect(head(page, "ap/all")).to_have_attribute("aria-sort", "descending")
    values = column(page, "ap/all")
    known = [value for value in values if value is not None]
    absent = [None] * (len(values) - len(known))
    assert values == sorted(known, reverse=True) + absent, "higher is better: the best first, absent ones last"
    page.keyboard.press("Enter")
    expect(head(page, "ap/all")).to_have_attribute("aria-sort", "ascending")
    assert column(page, "ap/all") == sorted(known) + absent, "in either direction"
    assert head(page, "ap/all").get_by_role("button").evaluate("(node) => node === document.activeElement")
    page.keyboard.press("Tab")
    assert page.locator(":focus").evaluate("(node) => getComputedStyle(node).outlineStyle") == "solid"


def test_smoke_runs_filters_and_search(visit, board, groups):
    page = visit(board)
    assert len(names(page)) == len(groups)
    assert "Too good" not in names(page)
    page.get_by_label("smoke run").check()
    assert names(page)[-1] == "Too good", "the best value of all, and still last"
    head(page, "avg_l2/all").get_by_role("button").click()
    expect(head(page, "avg_l2/all")).to_have_attribute("aria-sort", "descending")
    assert names(page)[-1] == "Too good", "in either direction"
    assert page.locator(f"{SHOWN} .dtrg-group").count() == 3, "results, references, smoke runs"
    page.get_by_label("synthetic", exact=True).uncheck()
    assert names(page) == ["Too good"]
    page.get_by_label("synthetic", exact=True).check()
    page.get_by_label("Method family").select_option("baseline")
    assert set(names(page)) == {group.title for group in groups if group.family == "baseline"}
    page.get_by_label("Method family").select_option("")
    page.get_by_label("Search").fill("nonsense")
    assert names(page) == []
    page.get_by_label("Search").fill("")
    page.get_by_label("inconsistent", exact=True).check()
    assert head(page, "avg_l2/all").count() == 0
    page.get_by_label("side by side").check()
    assert head(page, "avg_l2/all").is_visible()
    assert head(page, "avg_l2/consistent").is_visible()
    page.locator("#dataset").select_option("vat")
    assert not page.locator("#board-gazeworld").is_visible()
    assert set(page.locator("#board-vat tbody tr[data-kind]").evaluate_all("(r) => r.map((x) => x.dataset.kind)")) == {
        "published"
    }
    assert page.url.endswith("#vat")


def test_the_plot_and_the_links(visit, board, groups):
    page = visit(board)
    dots = page.locator("#chart circle")
    assert dots.count() == sum(group.lead["parameters"]["trained"] > 0 for group in groups), "no cost, no point"
    page.get_by_label("Method family").select_option("frozen foundation model")
    assert dots.count() == 1
    page.get_by_label("Method family").select_option("")
    page.locator("#plot-cost").select_option("memory")
    assert dots.count() == len(groups), "every run takes memory"
    page.locator("#plot-cost").select_option("inference")
    assert dots.count() == sum(group.costs()["inference"] is not None for group in groups) > 0
    page.locator("#plot-cost").select_option("memory")
    page.locator("#plot-metric").select_option("auc")
    assert "auc" in page.locator("#chart").inner_text()
    page.locator("#chart a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/gazeworld/*.html")
    page.get_by_role("link", name="gazebench leaderboards").click()
    page.wait_for_url("**/index.html#gazeworld")
    row = page.locator("tr[data-kind]").filter(has=page.get_by_role("link", name="Gaze-LLE", exact=True))
    assert "±" in row.inner_text(), "all seeds are one row"
    row.get_by_text("about").click()
    row.get_by_role("link", name="seed 1").click()
    page.wait_for_url("**/gazelle-*.html")


@pytest.mark.parametrize("system", ["light", "dark"])
def test_themes_and_narrow_screens(visit, board, report, system):
    page = visit(board, color_scheme=system, viewport={"width": 375, "height": 740})
    colour = "() => getComputedStyle(document.body).backgroundColor"
    first = page.evaluate(colour)
    assert (sum(map(int, re.findall(r"\d+", first)[:3])) > 600) == (system == "light")
    other = "dark" if system == "light" else "light"
    page.get_by_role("button", name=f"{other} theme").click()
    assert page.evaluate(colour) != first
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == other, "remembered"
    page.locator(f"{SHOWN} .scroll").evaluate("(node) => { node.scrollLeft = 400; }")
    assert page.locator("tr[data-kind] th.method").first.bounding_box()["x"] >= 0, "the name of the method stays"
    for path in (board, next(board.parent.glob("gazeworld/hclora-*.html")), report):
        page.goto(path.as_uri())
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 375, "tables scroll, not the page"


def test_a_run_page(visit, report):
    page = visit(report)
    shown = page.locator("#gallery li:visible")
    everybody = page.locator("#gallery li").count()
    assert everybody == shown.count() > 4
    page.locator("#gallery-subset").select_option("inconsistent")
    assert 0 < shown.count() < everybody
    page.locator("#gallery-subset").select_option("")
    page.locator("#gallery-error").select_option("largest tenth")
    assert set(shown.evaluate_all("(nodes) => nodes.map((node) => node.dataset.band)")) == {"largest tenth"}
    page.locator("#gallery-error").select_option("")
    ranks = "(nodes) => nodes.map((node) => node.dataset.rank).filter((rank) => rank !== undefined).map(Number)"
    assert shown.evaluate_all(ranks) == sorted(shown.evaluate_all(ranks))
    page.locator("#gallery-order").select_option("best first")
    assert shown.evaluate_all(ranks) == sorted(shown.evaluate_all(ranks), reverse=True)
    page.locator("#gallery img").first.scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('#gallery img').naturalWidth > 100")
    page.get_by_role("link", name="gazebench leaderboards").click()
    expect(page.get_by_label("smoke run")).to_be_checked()  # there are no others
    page.locator("tr[data-kind] a.name").first.click()
    page.wait_for_url("**/report.html")  # the board of this machine leads to the full page
