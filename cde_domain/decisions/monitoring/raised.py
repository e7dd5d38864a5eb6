"""An alarm that a report raises."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Raised:
    """
    An alarm: a short name for programs, a sentence without personal values, and whether training can mend it.

    A share of approvals or a ratio of groups follows from the policy too; a new model does not bring it back.
    """

    what: str
    said: str
    retrains: bool = True


def as_json(raised: Sequence[Raised]) -> list[dict[str, Any]]:
    """Alarms as JSON."""
    return [asdict(one) for one in raised]
