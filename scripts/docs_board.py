"""A hook of mkdocs: builds the board of the committed records into the site, and adds it to the navigation."""

from pathlib import Path
from typing import Any

from mkdocs.structure.nav import Link

from gazebench.engine.run import BOARDS
from gazebench.report import site

FOLDER = "leaderboards"


def on_nav(nav: Any, **_: Any) -> Any:
    nav.items.append(Link("Board", f"{FOLDER}/index.html"))
    return nav


def on_post_build(config: Any, **_: Any) -> None:
    site.build(Path(config["site_dir"]) / FOLDER, BOARDS)
