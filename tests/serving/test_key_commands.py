"""Tests for `cde keys`: what an administrator types, and the exit status."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cde_assets.api_keys import access_hint, key_for_a_moment
from cde_assets.cli import app
from cde_serving.service import open_scorer
from cde_serving.settings import Settings
from tests.support import NAME, REFERENCE, TinyLoans

Type = Callable[..., Result]
CREATE = ("create", "--tenant", "acme", "--scope", "score", "--scope", "read")


@pytest.fixture
def typed(tiny: TinyLoans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Type:
    """Type `cde keys ...` in a home of its own."""
    monkeypatch.setenv("CDE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CDE_PORTFOLIO", REFERENCE)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *words: CliRunner().invoke(app, ["keys", *words])


def test_a_created_key_opens_the_service(typed: Type, tmp_path: Path) -> None:
    """Standard output is the key and nothing else, for `KEY=$(cde keys create ...)`."""
    result = typed(*CREATE, "--rate", "9/second", "--name", "core banking")
    scorer = open_scorer(Settings(_env_file=None), tmp_path / "no-release")
    assert scorer.keys is not None
    key = scorer.keys.recognise(result.stdout.strip().encode())
    scorer.close()

    assert 0 == result.exit_code
    assert key is not None
    assert ("acme", "score read", "9/second", "core banking") == (key.tenant, key.granted, key.rate, key.name)


def test_who_makes_a_key_is_told_whose_service_it_opens(typed: Type) -> None:
    """A key for the portfolio that was not meant is otherwise noticed at the service's 401."""
    assert f"at the service of {NAME}" in typed(*CREATE).stderr


def test_the_list_shows_every_key_and_no_secret(typed: Type) -> None:
    """Who has which scopes, since when and until when; of the key itself the last four digits."""
    tokens = [typed(*CREATE).stdout.strip() for _ in range(2)]
    ids = [token.split("_")[1] for token in tokens]
    assert 0 == typed("revoke", ids[0]).exit_code

    listed = typed("list")

    assert 0 == listed.exit_code
    assert all(key_id in listed.stdout for key_id in ids)
    assert all(f"…{token[-4:]}" in listed.stdout for token in tokens)
    assert not any(token.split("_")[2][:32] in listed.stdout for token in tokens)
    states = {key_id: next(line for line in listed.stdout.splitlines() if key_id in line) for key_id in ids}
    assert ("revoked" in states[ids[0]], "counts" in states[ids[1]]) == (True, True)


def test_what_cannot_be_revoked_is_told(typed: Type) -> None:
    """Exit status 1, before the first key and for an unknown one."""
    assert 1 == typed("revoke", "0" * 12).exit_code
    key_id = typed(*CREATE).stdout.split("_")[1]

    assert [1, 0, 1] == [typed("revoke", one).exit_code for one in ("0" * 12, key_id, key_id)]


@pytest.mark.parametrize(
    "words",
    [
        ("create",), ("create", "--tenant", "acme"), ("create", "--scope", "score"), (*CREATE, "--rate", "often"),
        (*CREATE, "--scope", "root"), ("create", "--tenant", "Acme!", "--scope", "score"), (*CREATE, "--days", "0"),
    ],
)  # fmt: skip
def test_misuse_creates_nothing(typed: Type, words: tuple[str, ...]) -> None:
    """Exit status 2, and standard output holds no key."""
    result = typed(*words)

    assert 2 == result.exit_code
    assert not re.search("cde_", result.stdout)


def test_a_newcomer_is_told_how_to_make_the_first_key(typed: Type) -> None:
    """Until there is one, and again when it is revoked; without authentication that is told instead."""
    before = access_hint(Settings(_env_file=None))
    key_id = typed(*CREATE).stdout.split("_")[1]
    with_one = access_hint(Settings(_env_file=None))
    typed("revoke", key_id)

    assert before is not None
    assert "cde keys create --tenant default --scope score --scope read --portfolio " + REFERENCE in before
    assert with_one is None
    assert before == access_hint(Settings(_env_file=None))
    assert "whoever reaches the port" in str(access_hint(Settings(auth="off", _env_file=None)))


def test_the_key_of_a_demo_does_not_outlive_it(typed: Type) -> None:
    """It counts while it is needed, is revoked then, and would expire by itself."""
    settings = Settings(_env_file=None)
    with key_for_a_moment(settings, "score"):
        assert access_hint(settings) is None
        assert "counts until" in typed("list").stdout

    assert "revoked" in typed("list").stdout
    assert access_hint(settings) is not None
