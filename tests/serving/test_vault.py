"""Tests for `cde_serving.records.vault`."""

from pathlib import Path

import pytest

from cde_serving.records.vault import MasterKey, VaultError, new_key, seal, unseal

MASTER = MasterKey(bytes(range(32)))


def test_a_payload_is_read_with_its_key_alone() -> None:
    """Another key, another record or a flipped bit is refused, not decrypted to nonsense."""
    key = new_key()
    sealed = seal(key, b"income 60000", "record-1")

    assert b"income 60000" == unseal(key, sealed, "record-1")
    assert b"income" not in sealed
    for wrong in (
        (new_key(), sealed, "record-1"),
        (key, sealed, "record-2"),
        (key, sealed[:-1] + bytes([sealed[-1] ^ 1]), "record-1"),
        (key, b"", "record-1"),
    ):
        with pytest.raises(VaultError):
            unseal(*wrong)


def test_the_same_payload_is_never_sealed_alike() -> None:
    """Two equal applications cannot be recognised by their ciphertexts."""
    key = new_key()

    assert 100 == len({seal(key, b"income", "record-1") for _ in range(100)})


def test_a_wrapped_key_belongs_to_its_customer() -> None:
    """Who swaps two customers' keys in the database is refused."""
    key = new_key()
    wrapped = MASTER.wrap(key, "customer-1", 1)

    assert key == MASTER.unwrap(wrapped, "customer-1", 1)
    for master, customer, number in (
        (MASTER, "customer-2", 1),
        (MASTER, "customer-1", 2),
        (MasterKey(bytes(32)), "customer-1", 1),
    ):
        with pytest.raises(VaultError):
            master.unwrap(wrapped, customer, number)


def test_tokens_of_tenants_and_kinds_differ() -> None:
    """Two lenders' registers cannot be joined on them, and only the key's holder can make them."""
    tokens = {
        MASTER.token("customer", "bank-a", "customer-1"),
        MASTER.token("customer", "bank-b", "customer-1"),
        MASTER.token("idempotency key", "bank-a", "customer-1"),
        MASTER.token("request", "bank-a", b"customer-1"),
        MasterKey(bytes(32)).token("customer", "bank-a", "customer-1"),
    }

    assert 5 == len(tokens)
    assert MASTER.token("customer", "bank-a", "customer-1") in tokens


def test_a_missing_master_key_is_made_once_and_kept_to_its_owner(tmp_path: Path) -> None:
    """The embedded case needs no preparation."""
    path = tmp_path / "keys" / "master.key"

    made = MasterKey.open(path, create=True)

    assert made == MasterKey.open(path, create=True)
    assert 0o600 == path.stat().st_mode & 0o777


def test_without_permission_no_master_key_is_made(tmp_path: Path) -> None:
    """Whoever only reads must not hide that the key is gone."""
    with pytest.raises(VaultError, match="No such file"):
        MasterKey.open(tmp_path / "master.key", create=False)


@pytest.mark.parametrize("content", ["", "abc", "ab" * 31, "zz" * 32])
def test_a_damaged_master_key_is_refused_without_quoting_it(tmp_path: Path, content: str) -> None:
    """The message names the file, never what is in it."""
    path = tmp_path / "master.key"
    path.write_text(content)

    with pytest.raises(VaultError, match=r"master\.key") as raised:
        MasterKey.open(path, create=False)
    assert len(content) < 4 or content not in str(raised.value)


def test_a_master_key_is_not_shown() -> None:
    """A key that is printed by mistake shows nothing of itself."""
    assert bytes(range(32)).hex() not in repr(MASTER)
    assert repr(bytes(range(32))) not in repr(MASTER)
