"""The notice of adverse action: complete by law, for rejections alone, and safe to print."""

import asyncio
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest

from cde_domain.decisions.engine import DecisionEngine
from cde_domain.governance.adverse_action import missing_from, statements_of
from cde_domain.portfolio import Creditor, Portfolio, load_portfolio, shipped_portfolios
from cde_serving.records.erasure import Eraser
from cde_serving.records.record import DEFAULT_TENANT
from cde_serving.routes.notices import prefers_page
from tests.serving.helpers import RECORD, Desk
from tests.serving.test_follow_ups import REJECTION, follow

DECISIONS = "/api/v1/credit/decisions"
POOR: dict[str, Any] = {
    "annual_income": 20000.0,
    "loan_amount": 18000.0,
    "credit_history": {"score": 400.0, "accounts": [{"balance": 20000.0}]},
}
HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>\'"&'


class Page(HTMLParser):
    """The tags, addresses and texts of a page, and what `onload` and its like are set to."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href") or name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def rejected(desk: Desk, **changes: Any) -> dict[str, Any]:
    answer = desk.score(**{**POOR, **changes}).json()
    assert "REJECTED" == answer["decision"]
    return dict(answer)


def notice(desk: Desk, decision_id: str, accept: str = "*/*", page: str = "") -> httpx.Response:
    return desk.client.request("GET", f"{DECISIONS}/{decision_id}/notice{page}", headers={"accept": accept})


def test_a_rejection_gets_a_notice_with_all_that_the_law_asks_for(desk: Desk):
    answer = rejected(desk)

    found = notice(desk, answer["decision_id"]).json()

    assert ["Tiny Bank", "1 Test Street", "credit@tiny.example"] == list(found["creditor"].values())
    assert answer["reason_codes"] == [reason["code"] for reason in found["reasons"]]
    assert answer["risk_factors"][: len(found["reasons"])] == [reason["text"] for reason in found["reasons"]]
    assert 1 <= len(found["reasons"]) <= 4
    assert "2026-03-02" == found["applied_on"] == found["decided_on"]
    assert "automated system" in found["automated"]
    assert "artificial intelligence" in found["automated"]
    assert "contest" in found["contest"]
    assert "credit@tiny.example" in found["contest"]
    assert "Ombudsman" in " ".join(one["text"] for one in found["statements"])


def test_a_knock_out_is_its_own_reason(desk: Desk):
    answer = rejected(desk, credit_history={"score": 320.0, "accounts": []})

    found = notice(desk, answer["decision_id"]).json()

    expected = {"code": "BUREAU_SCORE_TOO_LOW", "text": "The bureau score is below 350"}
    assert [expected] == found["reasons"]
    assert "rule" in found["automated"]


def test_a_rejection_on_review_gives_the_reviewers_reasons_and_says_a_person_decided(desk: Desk):
    decision_id = desk.score(credit_history=None).json()["decision_id"]
    waiting = notice(desk, decision_id)
    assert follow(desk, decision_id, "review", REJECTION).is_success

    found = notice(desk, decision_id)

    assert 404 == waiting.status_code
    assert "waits for a person" in waiting.json()["detail"]
    assert REJECTION["reason_codes"] == [reason["code"] for reason in found.json()["reasons"]]
    assert "A person made this decision" in found.json()["automated"]
    assert REJECTION["reason"] not in found.text  # the reviewer's own words are for the lender
    assert REJECTION["reviewer"] not in found.text


def test_an_approval_on_review_takes_the_notice_back(desk: Desk):
    decision_id = rejected(desk)["decision_id"]
    approval = {"reviewer": "Jane Doe", "verdict": "APPROVED", "reason": "New payslips"}
    assert follow(desk, decision_id, "review", approval).is_success

    assert 404 == notice(desk, decision_id).status_code


def test_no_notice_for_what_was_approved_is_unknown_or_erased(desk: Desk):
    approved = desk.score().json()["decision_id"]
    declined = rejected(desk)["decision_id"]

    refused = notice(desk, approved)
    assert (404, "There is no notice, since the decision is not adverse") == (
        refused.status_code,
        refused.json()["detail"],
    )
    assert 404 == notice(desk, "0" * 32).status_code == notice(desk, "x", page=".html").status_code
    asyncio.run(Eraser(desk.scorer.log, "tiny_loans", retention_days=0, by="t").erase("customer-1", at_once=True))
    assert 410 == notice(desk, declined).status_code == notice(desk, declined, page=".html").status_code


def test_the_page_says_what_the_json_says_and_loads_nothing(desk: Desk):
    decision_id = rejected(desk)["decision_id"]
    found = notice(desk, decision_id).json()

    page = notice(desk, decision_id, page=".html")

    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.content == notice(desk, decision_id, accept="text/html,*/*;q=0.8").content
    read = Page(page.text)
    assert [] == read.addresses
    said = " ".join(read.texts)
    for text in (*(one["text"] for one in found["reasons"]), found["automated"], found["contest"], decision_id):
        assert text in said
    for statement in found["statements"]:
        assert statement["text"] in said


def test_hostile_texts_are_printed_and_never_run(desk: Desk):
    """Whoever gets a text into the log, the portfolio or a review gets it onto paper, not into the browser."""
    bundle = desk.scorer.releases.serving
    assert bundle is not None
    portfolio = replace(bundle.portfolio, title=HOSTILE, creditor=Creditor(HOSTILE, HOSTILE, HOSTILE))
    engine = DecisionEngine(portfolio, bundle.engine.model, bundle.engine.policy)
    desk.scorer.releases.serving = replace(bundle, engine=engine)
    answer = rejected(desk)
    stored = desk.scorer.log.get(answer["decision_id"], DEFAULT_TENANT)
    assert stored is not None
    payload = type(RECORD.payload)(
        customer_id=HOSTILE,
        request=b"{}",
        features=stored.payload.features,
        score=stored.payload.score,
        answer=stored.payload.answer.replace(answer["risk_factors"][0].encode(), HOSTILE.replace('"', '\\"').encode()),
    )
    asyncio.run(desk.scorer.log.record(replace(stored, record_id="7" * 32, payload=payload)))
    review = {**REJECTION, "reviewer": HOSTILE, "reason": HOSTILE}
    reviewed = rejected(desk)["decision_id"]
    assert follow(desk, reviewed, "review", review).is_success

    for decision_id in ("7" * 32, reviewed):
        read = Page(notice(desk, decision_id, page=".html").text)
        assert not {"script", "img"} & read.tags
        assert [] == read.addresses
    read = Page(notice(desk, "7" * 32, page=".html").text)
    assert read.texts.count(HOSTILE) >= 5  # customer, title, creditor's name and address, reason


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        ("*/*", False),
        ("", False),
        ("application/json", False),
        ("text/html", True),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("text/html;q=0.5, application/json", False),
        ("application/json;q=0.1, TEXT/HTML; q=0.2", True),
        ("text/html;q=much", False),
    ],
)
def test_the_accept_header_chooses_between_page_and_json(accept: str, page: bool):
    assert page is prefers_page(accept)


@pytest.mark.parametrize("name", shipped_portfolios())
def test_the_notices_of_the_shipped_portfolios_are_complete(name: str):
    """All but the bureau's own score, which only the lender's contract with the bureau can bring."""
    portfolio = load_portfolio(name)

    assert not [one for one in missing_from(portfolio) if one.startswith("creditor")]
    assert statements_of(portfolio)


def in_law_of(portfolio: Portfolio, jurisdiction: Any) -> str:
    return " ".join(one.law + one.text for one in statements_of(replace(portfolio, jurisdiction=jurisdiction)))


def test_each_jurisdiction_has_its_own_sentences():
    portfolio = load_portfolio("lending_club")

    assert "Equal Credit Opportunity Act" in in_law_of(portfolio, "US")
    assert "60 days" in in_law_of(portfolio, "US")
    assert "Federal Trade Commission" in in_law_of(portfolio, "US")
    assert "express your point of view and to contest" in in_law_of(portfolio, "EU")
    assert "Reserve Bank of India" in in_law_of(portfolio, "IN")


def test_a_lender_that_does_not_name_its_agency_is_told():
    portfolio = load_portfolio("lending_club")
    silent = replace(portfolio, creditor=Creditor("Bank", "Street", "mail@bank.example"))

    assert ["creditor.supervisor", "creditor.bureau"] == [one.split(":")[0] for one in missing_from(silent)[:2]]
