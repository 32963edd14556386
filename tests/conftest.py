"""For all tests: waiting threads sleep, and parsed annotations are kept apart from the user's."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

import pytest


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    before = os.environ.get("GAZEBENCH_CACHE")
    os.environ["GAZEBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["GAZEBENCH_CACHE"]
    else:
        os.environ["GAZEBENCH_CACHE"] = before
