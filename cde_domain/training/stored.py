"""Models of scikit-learn in files without pickle: skops, with our own list of what may come out of one."""

from pathlib import Path
from typing import Any

import skops.io

# Compiled classes of the two ensembles' trees; all else that skops meets is in its own list of harmless types.
TRUSTED_TYPES = (
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)


def write_skops(path: Path, content: dict[str, Any]) -> None:
    """Write estimators and arrays."""
    path.write_bytes(skops.io.dumps(content))


def read_skops(path: Path) -> dict[str, Any]:
    """
    Read what `write_skops` wrote.

    Raises:
        skops.io.exceptions.UntrustedTypesFoundException: the file holds a type that no model of ours needs.
    """
    return skops.io.loads(path.read_bytes(), trusted=list(TRUSTED_TYPES))
