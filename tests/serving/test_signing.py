"""Tests for `cde_serving.signing`."""

import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cde_serving.settings import Settings
from cde_serving.signing import SignatureError, SigningKey, TrustedKeys, open_signing_key

VALUE = {"model": "a" * 64, "score": 0.5, "notes": ["fine"]}


@pytest.fixture
def key() -> SigningKey:
    """A key."""
    return SigningKey.generate()


def trusted(tmp_path: Path, *keys: SigningKey) -> TrustedKeys:
    """The keys as a reader has them: from a PEM file."""
    path = tmp_path / "signing.pub"
    path.write_bytes(b"".join(key.public.pem() for key in keys))
    return TrustedKeys.read(path)


class TestSignatures:
    """What a signature proves."""

    def test_what_was_signed_verifies_whatever_the_order_of_its_fields(self, key: SigningKey, tmp_path: Path) -> None:
        """The signature is over canonical JSON."""
        signature = key.sign("evidence", VALUE)

        trusted(tmp_path, key).verify("evidence", dict(reversed(VALUE.items())), key=key.public.id, signature=signature)

    @pytest.mark.parametrize("changes", [{"score": 0.6}, {"notes": []}, {"more": 1}])
    def test_a_changed_value_does_not_verify(self, key: SigningKey, tmp_path: Path, changes: dict) -> None:
        """One field is enough."""
        signature = key.sign("evidence", VALUE)

        with pytest.raises(SignatureError, match="does not match"):
            trusted(tmp_path, key).verify("evidence", VALUE | changes, key=key.public.id, signature=signature)

    def test_a_signature_of_one_kind_is_none_of_another(self, key: SigningKey, tmp_path: Path) -> None:
        """Signed evidence cannot be passed off as an approval."""
        signature = key.sign("evidence", VALUE)

        with pytest.raises(SignatureError, match="does not match"):
            trusted(tmp_path, key).verify("approval", VALUE, key=key.public.id, signature=signature)

    @pytest.mark.parametrize("signature", ["", "zz", "00" * 64, "00" * 63])
    def test_what_is_no_signature_does_not_verify(self, key: SigningKey, tmp_path: Path, signature: str) -> None:
        """Neither nonsense nor zeros."""
        with pytest.raises(SignatureError, match="does not match"):
            trusted(tmp_path, key).verify("evidence", VALUE, key=key.public.id, signature=signature)

    @pytest.mark.parametrize("spell", [str.upper, lambda text: text + " ", lambda text: text[:2] + " " + text[2:]])
    def test_a_signature_has_one_spelling(self, key: SigningKey, tmp_path: Path, spell: Callable[[str], str]) -> None:
        """Capitals and spaces are the same number and another signature."""
        signature = spell(key.sign("evidence", VALUE))

        with pytest.raises(SignatureError, match="does not match"):
            trusted(tmp_path, key).verify("evidence", VALUE, key=key.public.id, signature=signature)

    def test_only_trusted_keys_count(self, key: SigningKey, tmp_path: Path) -> None:
        """A true signature by somebody else is refused by the key's id."""
        stranger = SigningKey.generate()

        with pytest.raises(SignatureError, match=f"{stranger.public.id}, which is not trusted"):
            trusted(tmp_path, key).verify(
                "evidence", VALUE, key=stranger.public.id, signature=stranger.sign("evidence", VALUE)
            )

    def test_after_a_change_of_keys_older_signatures_still_verify(self, key: SigningKey, tmp_path: Path) -> None:
        """The file of public keys may hold the old one beside the new one."""
        new = SigningKey.generate()

        both = trusted(tmp_path, new, key)

        for signer in (new, key):
            both.verify("evidence", VALUE, key=signer.public.id, signature=signer.sign("evidence", VALUE))


class TestKeyFiles:
    """Where keys come from."""

    def test_a_missing_key_is_generated_for_its_owner_alone(self, tmp_path: Path) -> None:
        """On first use, with the public key beside it."""
        private, public = tmp_path / "keys" / "signing.pem", tmp_path / "keys" / "signing.pub"

        key = open_signing_key(private, public, create=True)

        assert 0o600 == stat.S_IMODE(private.stat().st_mode)
        assert [key.public.id] == list(TrustedKeys.read(public).keys)
        assert key.public.id == open_signing_key(private, public, create=True).public.id
        assert {private, public} == set(private.parent.iterdir())

    def test_of_many_who_need_a_key_at_once_all_get_the_same(self, tmp_path: Path) -> None:
        """The first one wins."""
        files = tmp_path / "signing.pem", tmp_path / "signing.pub"

        with ThreadPoolExecutor(8) as pool:
            keys = list(pool.map(lambda _: open_signing_key(*files, create=True).public.id, range(8)))

        assert 1 == len(set(keys))

    def test_a_configured_key_is_never_generated(self, tmp_path: Path) -> None:
        """A path that leads nowhere is a mistake, not a wish for a new key."""
        with pytest.raises(SignatureError, match=r"nowhere\.pem holds no private key"):
            open_signing_key(tmp_path / "nowhere.pem", tmp_path / "signing.pub", create=False)

    def test_a_key_that_readers_do_not_trust_is_refused(self, key: SigningKey, tmp_path: Path) -> None:
        """Before something is signed with it that nobody would believe."""
        trusted(tmp_path, key)

        with pytest.raises(SignatureError, match="nobody would believe"):
            open_signing_key(tmp_path / "signing.pem", tmp_path / "signing.pub", create=True)

    @pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"])
    def test_a_file_that_holds_no_key_is_refused_by_name(self, tmp_path: Path, content: bytes) -> None:
        """Public and private."""
        path = tmp_path / "broken.pem"
        path.write_bytes(content)

        with pytest.raises(SignatureError, match=r"broken\.pem holds no public key"):
            TrustedKeys.read(path)
        with pytest.raises(SignatureError, match=r"broken\.pem holds no private key"):
            SigningKey.read(path)

    def test_a_key_of_another_kind_is_refused(self, tmp_path: Path) -> None:
        """Only Ed25519."""
        other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
        path = tmp_path / "rsa.pem"
        path.write_bytes(other.private_bytes(pem, serialization.PrivateFormat.PKCS8, no_password))
        with pytest.raises(SignatureError, match="another kind than Ed25519"):
            SigningKey.read(path)

        path.write_bytes(other.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
        with pytest.raises(SignatureError, match="another kind than Ed25519"):
            TrustedKeys.read(path)

    def test_keys_of_a_folder_are_filed_under_their_files_names(self, key: SigningKey, tmp_path: Path) -> None:
        """So that an approver's name comes from whoever filed the key."""
        (tmp_path / "Jane Smith.pem").write_bytes(key.public.pem())

        assert {key.public.id: "Jane Smith"} == TrustedKeys.read_folder(tmp_path).names
        assert {} == TrustedKeys.read_folder(tmp_path / "nowhere").names


def test_keys_lie_under_home_unless_set(tmp_path: Path) -> None:
    """The public key is looked for beside the private one."""
    plain = Settings(home=Path("/state"), _env_file=None)
    chosen = Settings(signing_key=Path("/vault/cde.pem"), _env_file=None)

    assert Path("/state/keys/signing.pem") == plain.signing_key_file()
    assert Path("/state/keys/signing.pub") == plain.verify_key_file()
    assert Path("/state/keys/approvers") == plain.approver_keys_folder()
    assert Path("/vault/cde.pub") == chosen.verify_key_file()
    assert Path("/etc/cde.pub") == Settings(verify_key=Path("/etc/cde.pub"), _env_file=None).verify_key_file()
