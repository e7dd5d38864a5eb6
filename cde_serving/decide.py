"""Decide applications with the release in a folder: `python -m cde_serving.decide FOLDER < lines`.

Each line in is `{"application": {...}, "applied_at": "2026-01-31"}`, each line out decision, score and contributions.
It runs on the code beside it, so a built bento is asked what it would answer by running it in the bento's folder.
"""

import sys
from datetime import date
from pathlib import Path

import msgspec

from cde_domain.release import Bundle
from cde_serving.releases import PUBLIC_KEY, ReleaseStore


def decide_line(bundle: Bundle, line: bytes) -> bytes:
    """The decision on one line."""
    given = msgspec.json.decode(line)
    application = bundle.portfolio.application.model_validate_json(msgspec.json.encode(given["application"]))
    decision = bundle.engine.decide(application, date.fromisoformat(given["applied_at"]))
    return msgspec.json.encode(
        {
            "decision": decision.decision,
            "score": decision.score,
            "contributions": list(decision.contributions.values()),
            "reason_codes": decision.reason_codes,
        }
    )


def main() -> None:
    """Decide every line of standard input."""
    folder = Path(sys.argv[1])
    bundle = ReleaseStore(folder, folder / PUBLIC_KEY).current()
    if bundle is None:
        raise SystemExit(f"nothing is promoted in {sys.argv[1]}")
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(decide_line(bundle, line) + b"\n")


if __name__ == "__main__":
    main()
