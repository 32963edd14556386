"""The page to try methods, in headless Chromium by real clicks, with no request to any other machine."""

import shutil

import numpy as np
import pytest

import gazebench
from gazebench.engine.registry import load_dataset

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("needs Chromium (apt-get install chromium)", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")
gradio = pytest.importorskip("gradio", reason="needs Gradio, of the extra app")

from PIL import Image  # noqa: E402

from gazebench.report import app  # noqa: E402

expect = sync_api.expect
expect.set_options(timeout=60_000)  # of a busy machine


@pytest.fixture
def address(monkeypatch, tmp_path):
    monkeypatch.setattr(app, "RUNS", tmp_path)  # none of this machine
    _, url, _ = app.serve(detector=str(tmp_path / "none.onnx"), prevent_thread_lock=True, quiet=True)
    yield url
    gradio.close_all()


@pytest.mark.slow  # Gradio takes seconds to import, and its page to load
def test_draw_a_head_and_see_where_it_looks(address, tmp_path):
    """Of a drawn scene: two clicks make a box, and the page says what the model as an object says of it."""
    data = load_dataset("gazeworld")(test=1)
    picture = data.image(data.records("test"), 0)
    Image.fromarray(picture).save(tmp_path / "scene.png")
    height, width = picture.shape[:2]
    outside = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 1400})
        tab.set_default_timeout(60_000)  # of a busy machine
        tab.on("request", lambda request: outside.append(request.url))
        tab.goto(address)
        tab.locator("input[type=file]").first.set_input_files(tmp_path / "scene.png")
        heads = tab.locator(".selectable img")
        expect(tab.get_by_text("no heads are looked for")).to_be_visible()
        for (x, y), done in (((0.25, 0.25), tab.get_by_text("one corner at")), ((0.5, 0.6), None)):
            box = heads.bounding_box()
            tab.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
            if done is not None:
                expect(done).to_be_visible()
        expect(tab.get_by_label("Head boxes")).not_to_have_value("")
        drawn = [float(side) for side in tab.get_by_label("Head boxes").input_value().split(",")]
        shares = np.array(drawn) / [width, height, width, height]
        np.testing.assert_allclose(shares, [0.25, 0.25, 0.5, 0.6], atol=0.02)
        tab.get_by_role("button", name="Where do they look?").click()
        expected = gazebench.load("gazelle_gazeworld", device="cpu").predict(picture, [drawn])
        expect(tab.get_by_label("In words")).to_have_value(expected.sentences()[0])
        person = expected.people[0]
        expect(tab.get_by_role("gridcell").first).to_have_text("1")
        cells = tab.get_by_role("gridcell").all_inner_texts()
        values = [float(cell) for cell in cells if cell.strip()]
        assert values[:4] == pytest.approx([1, *person.point, person.inout], abs=1e-3)
        browser.close()
    assert [url for url in outside if url.startswith("http") and not url.startswith(address)] == []
