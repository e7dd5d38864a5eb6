"""Fixtures of the tests of assets."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.assets.branch import write_watched_loans
from tests.support import TinyLoans


@pytest.fixture(scope="session")
def watched_loans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TinyLoans, Path]]:
    """The small portfolio as it is watched, and a bundle of it."""
    tiny, bundle = write_watched_loans(tmp_path_factory.mktemp("watched"))
    yield tiny, bundle
    sys.path.remove(str(tiny.folder))
