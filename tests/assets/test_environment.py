"""A model says what it was made with."""

from pathlib import Path

import cde_domain
from cde_assets.model.environment import lock_digest
from cde_domain.digests import file_digest

ROOT = Path(__file__).parents[2]


def test_the_lock_file_is_named_by_its_digest():
    assert lock_digest() == {"of": "requirements.lock", "sha256": file_digest(ROOT / "requirements.lock")}


def test_where_there_is_no_lock_file_what_is_installed_is_named_the_same_each_time(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(cde_domain, "__file__", str(tmp_path / "cde_domain" / "__init__.py"))

    first, second = lock_digest(), lock_digest()

    assert first == second
    assert first["of"] == "installed distributions"
    assert len(first["sha256"]) == 64
