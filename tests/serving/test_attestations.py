"""An attestation counts only if the named person signed just these words, for this portfolio, and it still holds."""

import datetime
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cde_domain.digests import write_json
from cde_domain.governance.attestations import Attestation
from cde_serving.attestations import SignedAttestation, read_attestations, write_attestation
from cde_serving.signing import SigningKey, TrustedKeys

TODAY = datetime.date(2026, 12, 1)
ASHA, PLATFORM = SigningKey.generate(), SigningKey.generate()


def _signed(key: SigningKey = ASHA, portfolio: str = "car_loans", **changes: object) -> SignedAttestation:
    stated = {
        "rule": "GOV-01",
        "name": "asha",
        "role": "head of model risk",
        "date": "2026-11-30",
        "expires": "2027-11-30",
        "statement": "Validated by a team that did not build it.",
    }
    return SignedAttestation.of(Attestation.model_validate(stated | changes), portfolio=portfolio, key=key)


def _trusted(**keys: SigningKey) -> TrustedKeys:
    return TrustedKeys({k.public.id: k.public for k in keys.values()}, {k.public.id: n for n, k in keys.items()})


def _read(folder: Path, today: datetime.date = TODAY) -> tuple[list[SignedAttestation], list[str]]:
    counting, refused = read_attestations(
        folder,
        {"GOV-01"},
        portfolio="car_loans",
        approvers=_trusted(asha=ASHA, bob=SigningKey.generate(), platform=PLATFORM),
        platform=_trusted(signing=PLATFORM),
        today=today,
    )
    return counting, [f"{file.file}: {file.why}" for file in refused]


def test_a_signed_attestation_counts_until_it_expires(tmp_path: Path) -> None:
    write_attestation(tmp_path, _signed())
    counting, refused = _read(tmp_path)
    assert ([each.name for each in counting], refused) == (["asha"], [])
    assert _read(tmp_path, datetime.date(2027, 11, 30)) == ([], ["GOV-01.json: it expired on 2027-11-30"])


def _edit(path: Path) -> None:
    path.write_text(path.read_text().replace("did not build", "did build"))


def _prolong(path: Path) -> None:
    value = json.loads(path.read_text())
    write_json(path, value | {"expires": "2027-12-01", "date": "2026-12-01"})


def _twice(path: Path) -> None:
    path.write_text(path.read_text().replace("{", '{\n  "expires": "2099-01-01",', 1))


BAD: list[tuple[str, SignedAttestation, Callable[[Path], object], str]] = [
    ("edited", _signed(), _edit, "it bears a signature that does not match"),
    ("prolonged", _signed(), _prolong, "it bears a signature that does not match"),
    ("a stranger's key", _signed(SigningKey.generate()), lambda path: None, "which is not trusted"),
    ("another's name", _signed(name="bob"), lambda path: None, "in the name of bob, but the key is asha's"),
    ("the trainer's key", _signed(PLATFORM, name="platform"), lambda path: None, "the platform's own key"),
    ("another portfolio", _signed(portfolio="other_loans"), lambda path: None, "it is for other_loans"),
    ("not yet", _signed(date="2026-12-02"), lambda path: None, "in the future"),
    ("a measured rule", _signed(rule="PERF-01"), lambda path: None, "PERF-01 is no rule that a person may attest"),
    ("spaces", _signed(), lambda path: path.write_bytes(path.read_bytes() + b" "), "its file holds other bytes"),
    ("a field twice", _signed(), _twice, "its file holds other bytes than were signed"),
    ("truncated", _signed(), lambda path: path.write_bytes(path.read_bytes()[:50]), "its file is damaged"),
    ("no attestation", _signed(), lambda path: path.write_text('{"rule": "GOV-01"}'), "its file is no attestation"),
]


@pytest.mark.parametrize(("attestation", "spoil", "told"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_an_attestation_that_does_not_count_is_refused_by_name(
    tmp_path: Path, attestation: SignedAttestation, spoil: Callable[[Path], object], told: str
) -> None:
    spoil(write_attestation(tmp_path, attestation))
    counting, (refused,) = _read(tmp_path)
    assert counting == []
    assert refused.startswith(f"{attestation.rule}.json: ")
    assert told in refused


def test_a_signature_under_an_approval_is_none_under_an_attestation(tmp_path: Path) -> None:
    attestation = _signed()
    approval = ASHA.sign("approval", attestation.model_dump(mode="json", exclude={"signature"}))
    write_attestation(tmp_path, attestation.model_copy(update={"signature": approval}))
    assert _read(tmp_path)[0] == []
