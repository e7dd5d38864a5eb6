"""The notice of adverse action for one decision: who refused, why, by what means, and what the applicant can do."""

from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from cde_domain.decisions.engine import MAX_REASONS, DecidedBy
from cde_domain.governance.adverse_action import missing_from, statements_of
from cde_domain.portfolio import Portfolio
from cde_serving.answers import Answer
from cde_serving.records.follow_ups import Content, Reason, Review
from cde_serving.records.record import Record

TEMPLATES = Path(__file__).parent / "templates"

ACTION = "Your application for credit was declined."
BY_MODEL = (
    "This decision was made by an automated system that uses artificial intelligence: a statistical model estimated "
    "from your application how likely the loan is to be repaid. No person took part in the decision."
)
BY_RULE = (
    "This decision was made by an automated system: a fixed rule of our lending policy applied to your application. "
    "The system also uses artificial intelligence, a statistical model, which did not decide here. No person took part "
    "in the decision."
)
BY_PERSON = (
    "A person made this decision. An automated system that uses artificial intelligence, a statistical model, had "
    "assessed your application before."
)
CONTEST = (
    "You may contest this decision, give us your view, correct what is wrong in your application, and have a person "
    "review it. Write to {contact} and name the reference above."
)


class NotAdverseError(LookupError):
    """A decision that no notice is due for."""


class Lender(msgspec.Struct, frozen=True):
    """Who refuses."""

    name: str
    address: str
    contact: str


class RequiredStatement(msgspec.Struct, frozen=True):
    """A paragraph that the law asks for."""

    law: str
    text: str


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """
    A notice of adverse action.

    `reasons` are the principal ones, the most important first, at most four. `incomplete` says what the law asks for
    and the portfolio does not say: it is for the lender, and no notice should leave while it is not empty.
    """

    decision_id: str
    customer_id: str
    product: str
    creditor: Lender
    applied_on: str
    decided_on: str
    action: str
    reasons: tuple[Reason, ...]
    automated: str
    contest: str
    jurisdiction: str
    statements: tuple[RequiredStatement, ...]
    incomplete: tuple[str, ...]


_answer = msgspec.json.Decoder(Answer).decode


def notice_of(record: Record, follow_ups: tuple[Content, ...], portfolio: Portfolio) -> Notice:
    """
    The notice for a decision as it stands after its last review.

    Raises:
        NotAdverseError: the decision is not a rejection.
    """
    reviews = [one for one in follow_ups if isinstance(one, Review)]
    review = reviews[-1] if reviews else None
    standing = review.verdict if review else record.decision
    if standing != "REJECTED":
        waits = " yet: it waits for a person's review" if standing == "MANUAL_REVIEW" else ""
        raise NotAdverseError(f"There is no notice, since the decision is not adverse{waits}")
    answer = _answer(record.payload.answer)
    creditor = portfolio.creditor
    return Notice(
        decision_id=record.record_id,
        customer_id=record.payload.customer_id,
        product=portfolio.title,
        creditor=Lender(creditor.name, creditor.address, creditor.contact),
        applied_on=record.applied_at[:10],
        decided_on=(review.at if review else record.applied_at)[:10],
        action=ACTION,
        reasons=review.reasons if review else _automatic_reasons(answer),
        automated=BY_PERSON if review else BY_RULE if record.decided_by == DecidedBy.RULE else BY_MODEL,
        contest=CONTEST.format(contact=creditor.contact),
        jurisdiction=portfolio.jurisdiction,
        statements=tuple(RequiredStatement(one.law, one.text) for one in statements_of(portfolio)),
        incomplete=missing_from(portfolio),
    )


def notice_page(notice: Notice) -> str:
    """The notice as one HTML page for a browser or a printer, nothing loaded from elsewhere."""
    return str(_template().render(notice=notice))


def _automatic_reasons(answer: Answer) -> tuple[Reason, ...]:
    """The reasons that were answered: a rule's own, or the texts that stand beside the model's codes."""
    if answer.explanation.decided_by is DecidedBy.RULE:
        return (Reason(answer.reason_codes[0], answer.explanation.detail or answer.reason_codes[0]),)
    pairs = zip(answer.reason_codes[:MAX_REASONS], answer.risk_factors, strict=False)
    return tuple(Reason(code, text) for code, text in pairs)


@cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined, autoescape=True
    )
    return environment.get_template("notice.html.jinja")
