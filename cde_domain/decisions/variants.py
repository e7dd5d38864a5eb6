"""Which of two models decides for a customer: a function of customer, experiment and weight alone."""

import hashlib
from enum import StrEnum


class Variant(StrEnum):
    """In which role a model decided; a shadow's decision is recorded and never answered."""

    CHAMPION = "champion"
    CHALLENGER = "challenger"
    SHADOW = "shadow"


def place_of(customer: str, experiment: str) -> float:
    """
    Where a customer stands in an experiment: even in [0, 1) over customers, and the same for ever.

    The experiment's name is hashed too, so that the customers at the front of one are not those of the next.
    """
    digest = hashlib.sha256(f"{experiment}\0{customer}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53  # 53 bits: more would round up to 1.0


def assigned(customer: str, experiment: str, weight: float) -> Variant:
    """
    The variant of a customer when a share `weight` (0 to 1) of customers goes to the challenger.

    A growing weight moves customers from champion to challenger and none back, so that an experiment can be widened
    without giving anybody another model twice.
    """
    return Variant.CHALLENGER if place_of(customer, experiment) < weight else Variant.CHAMPION
