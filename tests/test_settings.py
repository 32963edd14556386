"""Every setting of every method says where it comes from, and the page in the docs is the one the code gives."""

from pathlib import Path

import pytest

from gazebench.engine.method import Method, MethodCard, Setting
from gazebench.engine.registry import entries, load_method
from gazebench.report.settings import constructor_options, recipes, sheet, sources

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", [name for name, entry in entries("methods").items() if entry.ours])
def test_every_setting_has_an_origin(name):
    method = load_method(name)
    assert sources(method).keys() == constructor_options(method).keys()
    for recipe in recipes(name, method).values():
        for key, setting in recipe.items():
            assert isinstance(setting, Setting)
            assert setting.origin in ("paper", "official code", "ours")
            assert setting.why, f"{name}: {key} has no place or reason"


def test_the_page_is_up_to_date():
    page = ROOT / "docs" / "settings.md"
    assert page.read_text(encoding="utf-8") == sheet(), "run: gazebench settings > docs/settings.md"


def test_settings_of_a_base_are_the_methods_too():
    class Base(Method):
        """A base.

        Args:
            width: of it.
        """

        card = MethodCard(title="Base", family="test")

        def __init__(self, width: int = 3):
            super().__init__()

    class Extended(Base):
        """An extension."""

        def __init__(self, depth: int = 2, **base):
            super().__init__(**base)

    assert constructor_options(Extended) == {"depth": (2, ""), "width": (3, "of it.")}
    assert constructor_options(Base) == {"width": (3, "of it.")}
