"""The running service, as its page of metrics shows it."""

import math
from typing import Any

import dagster as dg

from cde_domain.decisions.experiments.service import Counters

SCORING = "/api/v1/credit/score"
_REQUESTS = "cde_http_requests_total"
_SECONDS = "cde_decision_seconds_bucket"
_WAIT = 2.0  # seconds


class ServiceResource(dg.ConfigurableResource):
    """Where the service of a portfolio answers `/metrics`."""

    portfolio: str
    url: str

    def counters(self, slow_after_ms: float) -> Counters | None:
        """The requests for decisions since the service started; None where no service of this portfolio answers."""
        import httpx

        try:
            page = httpx.get(self.url, timeout=_WAIT).raise_for_status().text
        except httpx.HTTPError:
            return None
        return counters_of(page, self.portfolio, slow_after_ms)


def counters_of(page: str, portfolio: str, slow_after_ms: float) -> Counters | None:
    """What a page of metrics says; None where it is of another portfolio or of no service of ours."""
    from prometheus_client.parser import text_string_to_metric_families

    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    served = {sample.labels["portfolio"] for sample in samples if sample.name == "cde_release_info"}
    process = next((sample.labels["chain"] for sample in samples if sample.name == "cde_decision_log_info"), None)
    if portfolio not in served or process is None:
        return None
    answered = [sample for sample in samples if sample.name == _REQUESTS and sample.labels["route"] == SCORING]
    timed, slow = _slow(samples, slow_after_ms)
    return Counters(
        process,
        requests=int(sum(sample.value for sample in answered)),
        failed=int(sum(sample.value for sample in answered if sample.labels["status"].startswith("5"))),
        timed=timed,
        slow=slow,
    )


def _slow(samples: list[Any], slow_after_ms: float) -> tuple[int, int]:
    """How many of the challenger's decisions were timed, and how many exceed the first edge not below the limit."""
    buckets = {
        float(sample.labels["le"]): int(sample.value)
        for sample in samples
        if sample.name == _SECONDS and sample.labels["variant"] == "challenger"
    }
    timed = buckets.get(math.inf, 0)
    return timed, timed - min((count for edge, count in buckets.items() if edge * 1000 >= slow_after_ms), default=0)
