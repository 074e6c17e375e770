"""What the tests of the page in a browser share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def browser():
    """Chromium, for all tests of a module."""
    from tests.browsing import chromium  # here, because without playwright it skips whoever imports it

    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page on Toyland; modules that want another model have one of their own."""
    from tests.served import served  # takes seconds, which most tests do without

    with served("toyland", tmp_path_factory.mktemp("outputs")) as url:
        yield url
