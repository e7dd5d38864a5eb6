"""Reviews and outcomes of recorded decisions: validated, and recorded in the same chain."""

import asyncio
import datetime
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, Field, create_model

from cde_domain.application import Record as StrictRecord
from cde_domain.clock import Clock, utc_now
from cde_domain.decisions.catalogue import reason_catalogue
from cde_domain.decisions.engine import MAX_REASONS
from cde_domain.release import Bundle
from cde_serving.applications import InvalidApplicationError, Problem, canonical, parse_application
from cde_serving.decision_log import DecisionLog, KeyReusedError
from cde_serving.follower import NothingPromotedError, ReleaseFollower
from cde_serving.records.follow_ups import (
    Content,
    FollowUp,
    LoanResult,
    Reason,
    Review,
    UnknownDecisionError,
    encode,
)
from cde_serving.records.names import iso, record_id_at
from cde_serving.records.record import DEFAULT_TENANT, Record

# Control characters drive the terminal or the log that a text is shown in: none in a name, line ends and tabs in prose.
_CONTROL = {
    "reviewer": re.compile(r"[\x00-\x1f\x7f-\x9f]"),
    "reason": re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n)"),
}


class ReviewBody(StrictRecord):
    """A named person's verdict. A rejection names its principal reasons, the most important first."""

    reviewer: str = Field(min_length=1, max_length=100, pattern=r"\S", description="Name of the person who decided")
    verdict: Literal["APPROVED", "REJECTED"]
    reason: str = Field(
        min_length=1, max_length=2000, pattern=r"\S", description="Why the reviewer decided so; for the lender alone"
    )
    reason_codes: list[str] = Field(
        default=[], max_length=MAX_REASONS, description="1 to 4 codes of the portfolio's catalogue for a rejection"
    )


@cache
def outcome_body(good: Any, bad: Any) -> type[BaseModel]:
    """The model of an outcome: `repaid` or `defaulted`, or the portfolio's own value for the one or the other."""
    own = [value for value in (good, bad) if isinstance(value, str | int)]  # what JSON and an enumeration can hold
    values: Any = Literal["repaid", "defaulted", *own]
    fields: dict[str, Any] = {
        "outcome": (values, ...),
        "date": (datetime.date, Field(description="Since when it is known")),
    }
    return create_model("OutcomeBody", __base__=StrictRecord, __doc__="What became of a loan.", **fields)


class FollowUps:
    """Takes in what follows decisions, and gives it back; a correction is one more record."""

    def __init__(self, releases: ReleaseFollower, log: DecisionLog, clock: Clock = utc_now) -> None:
        self._releases = releases
        self._log = log
        self._clock = clock

    async def review(
        self, decision_id: str, body: bytes, *, key: str | None = None, tenant: str = DEFAULT_TENANT
    ) -> bytes:
        """
        Record a reviewer's verdict; returns the answer once it is committed.

        Raises:
            UnknownDecisionError, ErasedError: there is no decision to review, or none that may be used.
            InvalidApplicationError: the body is no review; nothing was recorded.
            NothingPromotedError: no bundle is served, so that nobody can say which reasons the portfolio knows.
            LogBusyError, LogUnavailableError, KeyInProgressError, KeyReusedError: as `DecisionLog.record`.
        """

        def content(record: Record, at: str) -> Content:
            review: ReviewBody = parse_application(ReviewBody, body)[0]
            _refuse_control_characters(review)
            return Review(
                record_id=record_id_at(self._clock()),
                decision_id=record.record_id,
                at=at,
                reviewer=review.reviewer,
                verdict=review.verdict,
                reason=review.reason,
                reasons=_reasons(review, self._bundle()),
            )

        return await self._record("review", decision_id, body, content, key, tenant)

    async def outcome(
        self, decision_id: str, body: bytes, *, key: str | None = None, tenant: str = DEFAULT_TENANT
    ) -> bytes:
        """Record what became of a loan, which a rejection has not led to; raises as `review`."""

        def content(record: Record, at: str) -> Content:
            label = self._bundle().portfolio.outcome
            given: Any = parse_application(outcome_body(label.good, label.bad), body)[0]
            if not record.applied_at[:10] <= given.date.isoformat() <= at[:10]:
                raise InvalidApplicationError(
                    [Problem("date", "Date lies before the application or in the future", "date_out_of_range")]
                )
            if _standing(record, self.about(record)) == "REJECTED":
                raise InvalidApplicationError(
                    [Problem("outcome", "Nothing was lent: the decision stands as REJECTED", "nothing_lent")]
                )
            return LoanResult(
                record_id=record_id_at(self._clock()),
                decision_id=record.record_id,
                at=at,
                outcome="repaid" if given.outcome in ("repaid", label.good) else "defaulted",
                date=given.date.isoformat(),
            )

        return await self._record("outcome", decision_id, body, content, key, tenant)

    def about(self, record: Record) -> tuple[Content, ...]:
        """All that follows a recorded decision, oldest first."""
        return self._log.follow_ups.about(record.record_id, record.tenant)

    async def _record(
        self,
        kind: str,
        decision_id: str,
        body: bytes,
        content: Callable[[Record, str], Content],
        key: str | None,
        tenant: str,
    ) -> bytes:
        fingerprint = None
        if key is not None:
            fingerprint = self._log.fingerprint(f"{kind}/{decision_id}\n".encode() + canonical(body), tenant)
            # What was answered once is answered again, whatever today's catalogue makes of the body.
            known = await asyncio.to_thread(self._log.follow_ups.find, key, tenant)
            if known is not None:
                if known[1] != fingerprint:
                    raise KeyReusedError
                return known[0]
        record = await asyncio.to_thread(self._log.get, decision_id, tenant)
        if record is None:
            raise UnknownDecisionError(decision_id)
        told = await asyncio.to_thread(content, record, iso(self._clock()))  # it may read
        return await self._log.follow_up(
            FollowUp(
                content=told,
                answer=encode(told),
                portfolio=record.portfolio,
                tenant=tenant,
                idempotency_key=key,
                fingerprint=fingerprint,
            )
        )

    def _bundle(self) -> Bundle:
        if self._releases.serving is None:
            raise NothingPromotedError
        return self._releases.serving


def history(record: Record, follow_ups: tuple[Content, ...]) -> Mapping[str, Any]:
    """What followed a decision; `standing` is its last verdict, `outcome` the last known."""
    reviews = [one for one in follow_ups if isinstance(one, Review)]
    outcomes = [one for one in follow_ups if isinstance(one, LoanResult)]
    return {
        "decision_id": record.record_id,
        "decision": record.decision,
        "standing": _standing(record, follow_ups),
        "outcome": outcomes[-1].outcome if outcomes else None,
        "reviews": msgspec.to_builtins(reviews),
        "outcomes": msgspec.to_builtins(outcomes),
    }


def _standing(record: Record, follow_ups: tuple[Content, ...]) -> str:
    """The verdict of the last review, or else what was answered."""
    verdicts = [one.verdict for one in follow_ups if isinstance(one, Review)]
    return verdicts[-1] if verdicts else record.decision


def _refuse_control_characters(review: ReviewBody) -> None:
    places = [name for name, control in _CONTROL.items() if control.search(getattr(review, name))]
    if places:
        raise InvalidApplicationError(
            [Problem(place, "Text holds a control character", "forbidden_character") for place in places]
        )


def _reasons(review: ReviewBody, bundle: Bundle) -> tuple[Reason, ...]:
    """The reasons of a rejection in the words of the catalogue: 12 CFR 1002.9(b)(2) asks for the specific ones."""
    codes = review.reason_codes
    if review.verdict == "APPROVED":
        if codes:
            raise _refused("reason_codes", "An approval has no reason codes")
        return ()
    if not codes:
        raise _refused("reason_codes", "A rejection needs 1 to 4 codes of the portfolio's reasons")
    catalogue = reason_catalogue(bundle.portfolio.features, bundle.engine.policy)
    for place, code in enumerate(codes):
        if code not in catalogue:
            raise _refused(f"reason_codes.{place}", f"Code is none of {', '.join(sorted(catalogue))}")
        if code in codes[:place]:
            raise _refused(f"reason_codes.{place}", "Code is given twice")
    return tuple(Reason(code, catalogue[code]) for code in codes)


def _refused(field: str, message: str) -> InvalidApplicationError:
    return InvalidApplicationError([Problem(field, message, "reason_codes")])
