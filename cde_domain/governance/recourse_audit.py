"""How often a declined applicant can be told what would lead to an approval, and whether it is true."""

from collections import Counter
from collections.abc import Iterable
from datetime import date
from typing import Any

import numpy as np
from pydantic import BaseModel

from cde_domain.decisions.engine import DecisionEngine
from cde_domain.decisions.policy import Outcome
from cde_domain.decisions.recourse import RecourseFinder
from cde_domain.intervals import wilson


def recourse_facts(engine: DecisionEngine, declined: Iterable[tuple[BaseModel, date]]) -> dict[str, Any]:
    """
    Search recourse for applications as of their dates, and let the engine decide each changed application again.

    `valid` counts those that are APPROVED; `by_changes` how many fields change. Only counts are kept, as a sentence
    holds an applicant's values.
    """
    finder = RecourseFinder(engine)
    asked = valid = 0
    changes: Counter[int] = Counter()
    fields: Counter[str] = Counter()
    costs: list[float] = []
    for application, applied_at in declined:
        found = finder.find(application, applied_at)
        asked += 1
        if found is None:
            continue
        valid += engine.decide(found.application, applied_at).decision is Outcome.APPROVED
        changes[len(found.changes)] += 1
        fields.update(change.field for change in found.changes)
        costs.append(found.cost)
    with_recourse = sum(changes.values())
    actionable = [spec.name for spec in finder.specs if spec.actionable is not None]
    return {
        "actionable": actionable,
        "declined": asked,
        "with_recourse": with_recourse,
        "share": with_recourse / asked if asked else None,
        "share_interval": list(wilson(with_recourse, asked)) if asked else None,
        "valid": valid,
        "by_changes": [{"fields": number, "applicants": changes[number]} for number in sorted(changes)],
        "mean_changes": float(np.mean(list(changes.elements()))) if with_recourse else None,
        "mean_cost": float(np.mean(costs)) if costs else None,
        "by_field": [{"field": name, "applicants": count} for name, count in fields.most_common()],
    }
