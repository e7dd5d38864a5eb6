"""What is loaded before somebody asks for it."""

import gc
import sys
import time
from pathlib import Path

import pytest

from cde_serving import explanations, warming
from cde_serving.explanations import Explainer
from tests.serving.helpers import SCORE, releases_in, start_server, wait_for
from tests.support import NAME, TinyLoans


def test_lime_is_run_once_where_it_is_installed_and_missed_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the thread that explains, which the first explanation then waits for."""
    runs = []
    lime_surrogate = warming.lime_surrogate

    def counted(*given: object, **named: object) -> None:
        runs.append(lime_surrogate(*given, **named))  # type: ignore[arg-type]

    monkeypatch.setattr(warming, "lime_surrogate", counted)
    explainer = Explainer()
    explainer.warm()
    explainer.close()
    assert 1 == len(runs)

    monkeypatch.setitem(sys.modules, "lime.lime_tabular", None)
    warming.warm_lime()
    assert 1 == len(runs)


def test_what_explains_is_kept_out_of_full_collections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Walking LIME's libraries made each full collection 30 ms long, which is what the slowest answers waited for."""
    libraries: list[list[object]] = []
    monkeypatch.setattr(explanations, "warm_lime", lambda: libraries.extend([] for _ in range(1000)))
    gc.unfreeze()
    explainer = Explainer()
    explainer.warm()
    explainer.close()
    try:
        assert 1000 < gc.get_freeze_count()
    finally:
        gc.unfreeze()


@pytest.mark.slow
def test_the_first_full_explanation_of_a_server_is_as_fast_as_others(
    tiny: TinyLoans, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    """It took ten seconds, the time to load LIME."""
    releases_in(tmp_path / "home" / NAME).promote(bundles[0])
    server = start_server(tiny, tmp_path, CDE_WARM_EXPLANATIONS="on")
    try:
        wait_for(lambda: "LIME loaded" in server.output.read_text(), 60)
        began = time.monotonic()
        first = server.client.post(f"{SCORE}?explain=full", json=dict(tiny.portfolio.example))
        seconds = time.monotonic() - began
    finally:
        server.kill()

    assert first.json()["explanation"]["lime"]["weights"]
    assert seconds < 1.5
