"""Tests for the probes, metrics and documentation, in this process."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cde_serving.app import routes_of
from tests.serving.helpers import EVIDENCE, SCORE, Desk, Releases, releases_in
from tests.support import NAME


def sample(page: str, name: str, **labels: str) -> float:
    """The value of one sample on a metrics page; 0 if it is not there."""
    return sum(
        found.value
        for family in text_string_to_metric_families(page)
        for found in family.samples
        if found.name == name and labels.items() <= found.labels.items()
    )


class TestProbes:
    """`/health` and `/ready`."""

    def test_a_process_with_nothing_to_serve_is_alive_but_not_ready(
        self, open_desk: Callable[[Releases], Desk], releases: Releases
    ) -> None:
        """Liveness does not depend on a promotion."""
        client = open_desk(releases).client

        assert (200, {"status": "ok"}) == (client.get("/health").status_code, client.get("/health").json())
        assert 503 == client.get("/ready").status_code
        assert {"status": "nothing promoted yet", "run": "make demo"} == client.get("/ready").json()

    def test_ready_tells_what_is_served(self, desk: Desk, bundles: tuple[Path, Path]) -> None:
        """Portfolio, bundle and policy."""
        ready = desk.client.get("/ready")

        assert 200 == ready.status_code
        assert ("ready", NAME, bundles[0].name, "1", None) == tuple(
            ready.json()[name] for name in ("status", "portfolio", "bundle", "policy_version", "problem")
        )

    def test_ready_tells_that_decisions_cannot_be_recorded(self, desk: Desk) -> None:
        """A service whose log fails takes no traffic."""
        desk.scorer.log.writer.problem = "OperationalError"

        ready = desk.client.get("/ready")

        assert (503, "OperationalError") == (ready.status_code, ready.json()["problem"])

    def test_ready_tells_that_the_first_bundle_cannot_be_verified(
        self, open_desk: Callable[[Releases], Desk], releases: Releases, bundles: tuple[Path, Path]
    ) -> None:
        """A tampered bundle is not "nothing promoted"."""
        digest = releases.promote(bundles[0])
        (releases.store.bundles / digest / "policy.yaml").write_text("approve_at: 0.0\n", encoding="utf-8")

        ready = open_desk(releases).client.get("/ready")

        assert (503, "promoted bundle cannot be served") == (ready.status_code, ready.json()["status"])
        assert "policy.yaml" in ready.json()["problem"]


class TestMetrics:
    """`/metrics`."""

    def test_requests_and_decisions_are_counted(self, desk: Desk) -> None:
        """By route and status, by decision and what led to it."""
        decision = desk.score().json()["decision"]
        desk.score(annual_income=-1.0)

        page = desk.client.get("/metrics").text

        assert 1 == sample(page, "cde_http_requests_total", route=SCORE, status="200")
        assert 1 == sample(page, "cde_http_requests_total", route=SCORE, status="422")
        assert 2 == sample(page, "cde_http_request_seconds_count", route=SCORE)
        assert 1 == sample(page, "cde_decisions_total", decision=decision, decided_by="model")
        assert 1 == sample(page, "cde_score_count")

    def test_paths_and_ids_are_no_labels(self, desk: Desk) -> None:
        """The number of series does not grow with what is asked for."""
        for path in ("/api/v1/credit/decisions/" + "0" * 32, "/a", "/b/customer-1", "/docs/assets/swagger-ui.css"):
            desk.client.get(path)

        page = desk.client.get("/metrics").text

        routes = set(re.findall(r'route="([^"]*)"', page))
        assert {"/api/v1/credit/decisions/{decision_id}", "other", "/docs/assets"} == routes

    def test_a_bundle_that_cannot_be_served_is_counted(
        self, desk: Desk, releases: Releases, bundles: tuple[Path, Path]
    ) -> None:
        """An alarm can be set on it."""
        store = desk.scorer.releases.store
        store.ledger.append(
            action="promote",
            portfolio=NAME,
            bundle=bundles[1].name,
            expected_sequence=1,
            evidence=EVIDENCE,
            key=releases.key,
            by="test",
        )
        desk.scorer.releases.refresh()

        assert 1 == sample(desk.client.get("/metrics").text, "cde_release_load_failures_total")


def references(schema: Any) -> Iterator[str]:
    """Every `$ref` in a document."""
    if isinstance(schema, dict):
        for keyword, value in schema.items():
            if keyword == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from references(item)


def keywords(schema: Any) -> Iterator[str]:
    """Every keyword of a schema and the schemas inside it."""
    if isinstance(schema, list):
        for item in schema:
            yield from keywords(item)
    elif isinstance(schema, dict):
        for keyword, value in schema.items():
            yield keyword
            if keyword == "properties":
                yield from keywords(list(value.values()))
            elif keyword not in ("default", "example", "enum"):
                yield from keywords(value)


class TestDocumentation:
    """`/docs` and `/openapi.json`."""

    def test_the_page_loads_nothing_from_elsewhere(self, desk: Desk) -> None:
        """Every file of the page is served by the service itself, and the browser is told to ask for no other."""
        page = desk.client.get("/docs")

        files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(files) == 4
        assert [200] * 4 == [desk.client.get(file).status_code for file in files]
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert "/openapi.json" in desk.client.get("/docs/start.js").text

    def test_the_root_leads_to_the_page(self, desk: Desk) -> None:
        """Whoever opens the service in a browser finds its documentation."""
        root = desk.client.get("/")

        assert (307, "/docs") == (root.status_code, root.headers["location"])

    def test_the_document_describes_the_served_application(self, desk: Desk) -> None:
        """The request's schema and example are those of the portfolio in the bundle."""
        document = desk.client.get("/openapi.json").json()
        body = document["paths"][SCORE]["post"]["requestBody"]["content"]["application/json"]

        assert "3.0.3" == document["openapi"]
        assert {"$ref": "#/components/schemas/TinyApplication"} == body["schema"]
        assert ["customer_id", "annual_income", "loan_amount", "loan_purpose"] == document["components"]["schemas"][
            "TinyApplication"
        ]["required"]
        own = {"200", "400", "408", "409", "410", "413", "415", "422", "503", "504"}
        refusals = {"401", "403", "429", "431", "503"}
        assert own | refusals == set(document["paths"][SCORE]["post"]["responses"])

    def test_the_documented_example_is_decided(self, desk: Desk) -> None:
        """Pasting the example from the page works."""
        document = desk.client.get("/openapi.json").json()
        example = document["paths"][SCORE]["post"]["requestBody"]["content"]["application/json"]["example"]

        assert 200 == desk.client.post(SCORE, json=example).status_code

    def test_the_answer_has_the_documented_fields(self, desk: Desk) -> None:
        """What is documented is what is answered."""
        schemas = desk.client.get("/openapi.json").json()["components"]["schemas"]

        answer = desk.score().json()

        assert set(schemas["Answer"]["properties"]) == set(answer)
        assert set(schemas["Explanation"]["properties"]) == set(answer["explanation"])
        assert "date-time" == schemas["Answer"]["properties"]["applied_at"]["format"]

    def test_the_document_is_openapi_3_0(self, desk: Desk) -> None:
        """Every reference leads somewhere, and no schema uses a keyword that OpenAPI 3.0 does not have."""
        document = desk.client.get("/openapi.json").json()
        schemas = document["components"]["schemas"]
        allowed = {
            "$ref", "additionalProperties", "allOf", "anyOf", "default", "description", "enum", "example",
            "exclusiveMaximum", "exclusiveMinimum", "format", "items", "maxItems", "maxLength", "maximum", "minItems",
            "minLength", "minimum", "nullable", "pattern", "properties", "required", "title", "type",
        }  # fmt: skip

        assert {f"#/components/schemas/{name}" for name in schemas} >= set(references(document))
        used = set(keywords(list(schemas.values())))
        assert set() == {keyword for keyword in used - allowed if not keyword.startswith("x-")}

    def test_before_the_first_promotion_an_application_is_any_object(
        self, open_desk: Callable[[Releases], Desk], releases: Releases
    ) -> None:
        """The documentation is there before the first model."""
        document = open_desk(releases).client.get("/openapi.json").json()

        body = document["paths"][SCORE]["post"]["requestBody"]["content"]["application/json"]
        assert {"type": "object"} == body["schema"]

    def test_the_document_follows_a_promotion(self, desk: Desk, bundles: tuple[Path, Path]) -> None:
        """The document's version is the served bundle's."""
        before = desk.client.get("/openapi.json").json()["info"]["version"]
        releases_in(desk.scorer.releases.store.folder).promote(bundles[1])
        desk.scorer.releases.refresh()

        assert (bundles[0].name[:12], bundles[1].name[:12]) == (
            before,
            desk.client.get("/openapi.json").json()["info"]["version"],
        )


@pytest.mark.parametrize("path", ["/nothing", "/docs.json", "/docs/assets/../../etc/passwd"])
def test_an_unknown_path_is_not_found(desk: Desk, path: str) -> None:
    """404 in JSON."""
    assert 404 == desk.client.get(path).status_code


def test_every_route_of_the_service_is_documented(desk: Desk) -> None:
    """Nobody has to read the code to find a route."""
    documented = set(desk.client.get("/openapi.json").json()["paths"])

    served = {route.path for route in routes_of(desk.scorer) if route.path.startswith("/api/")}
    assert served == {path for path in documented if path.startswith("/api/")}
