"""What a model was made with, so that it can be made again to the bit."""

from importlib.metadata import distributions
from pathlib import Path

import cde_domain
from cde_domain.digests import file_digest, json_digest

LOCK = "requirements.lock"


def lock_digest() -> dict[str, str]:
    """The lock file and its SHA-256; where the code runs without one, the digest of what is installed."""
    lock = Path(cde_domain.__file__).parents[1] / LOCK
    if lock.is_file():
        return {"of": LOCK, "sha256": file_digest(lock)}
    installed = sorted({f"{found.metadata['Name'].lower()}=={found.version}" for found in distributions()})
    return {"of": "installed distributions", "sha256": json_digest(installed)}
