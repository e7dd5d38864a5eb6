"""The lender of the loop: a home of its own, and a copy of the shipped portfolio that may be edited."""

import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cde_domain.portfolio.loading import portfolio_code
from cde_serving.clock_file import write_instant
from cde_serving.settings import Settings

BASED_ON = "personal_loan"
MODULE = "loop_lender"
REFERENCE = f"{MODULE}:PORTFOLIO"
BEGINS = datetime(2025, 7, 1, tzinfo=UTC)
# Enough applications in five simulated years to train on in a minute; drawn with a seed whose small groups are like the
# others by chance too, so that the gate has no reason to refuse.
SOURCES = {"rows": 5_000, "seed": 1}

SMALLER = f'''"""Personal loans as shipped, for a small lender in a hurry."""

from dataclasses import replace

from cde_domain.portfolio import ExperimentRules

from .{BASED_ON} import PORTFOLIO as SHIPPED

PORTFOLIO = replace(
    SHIPPED,
    # A smaller search for the best model.
    tuning_budget=1,
    alternatives=20,
    boosting={{**SHIPPED.boosting, "rounds": 150, "learning_rate": 0.06}},
    # A model of 3,000 loans ranks less well than one of 15,000; what drift does to it is for the drift report to say.
    alarms=replace(SHIPPED.alarms, window_days=7, min_auc=0.6, min_accuracy=0.6, max_auc_drop=0.3, max_brier_rise=0.2),
    # Two days and some thousand customers a step; wider guardrails need fewer customers to be ruled out.
    experiment=ExperimentRules(
        min_days=1, max_approval_change=0.20, max_score_shift=0.15, max_expected_bad_rate_rise=0.15, slow_after_ms=5000
    ),
)
'''


@dataclass(frozen=True)
class LoopLender:
    """Folders of one run of the loop, all below `folder`."""

    folder: Path

    @classmethod
    def found(cls, settings: Settings) -> "LoopLender":
        """
        A lender at the beginning: an empty home, and the clock at the first day.

        What an earlier loop left in `$CDE_HOME/loop` is forgotten; nothing else of the home is touched.
        """
        lender = cls(settings.home / "loop")
        shutil.rmtree(lender.folder, ignore_errors=True)
        code = portfolio_code(BASED_ON)
        for name, path in code.files.items():
            target = lender.portfolio / BASED_ON / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        (lender.portfolio / "__init__.py").write_text(SMALLER, encoding="utf-8")
        write_instant(lender.clock_file, BEGINS)
        return lender

    @property
    def portfolio(self) -> Path:
        """The portfolio's code, as the lender has it."""
        return self.folder / "lender" / MODULE

    @property
    def home(self) -> Path:
        """What the platform keeps."""
        return self.folder / "home"

    @property
    def clock_file(self) -> Path:
        """What tells the time."""
        return self.folder / "clock"

    @property
    def timeline(self) -> Path:
        """What happened."""
        return self.folder / "timeline.json"

    def environment(self, port: int) -> dict[str, str]:
        """The settings of everything that runs for this lender, given as environment variables."""
        path = [str(self.portfolio.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            "CDE_HOME": str(self.home),
            "CDE_PORTFOLIO": REFERENCE,
            "CDE_SOURCE_OPTIONS": json.dumps(SOURCES),
            "CDE_CLOCK_FILE": str(self.clock_file),
            "CDE_PORT": str(port),
            "CDE_AUTH": "on",
            "PYTHONWARNINGS": "ignore",  # deprecations inside libraries are no news to a lender
            "PYTHONPATH": os.pathsep.join(path),
        }

    def choose(self, port: int) -> Settings:
        """Make this lender the one that this process and all that it starts work for."""
        os.environ.update(self.environment(port))
        sys.path.insert(0, str(self.portfolio.parent))
        return Settings()

    def approve_everybody(self) -> None:
        """
        A harmful edit of the policy: cut-offs at which hardly anybody is turned down.

        Raises:
            ValueError: the policy has no such cut-offs any more.
        """
        policy = self.portfolio / BASED_ON / "policy.yaml"
        text = policy.read_text(encoding="utf-8")
        for name, cut_off in {"version": '"harmful"', "approve_at": "0.02", "review_at": "0.01"}.items():
            text, found = re.subn(rf"(?m)^{name}: .*$", f"{name}: {cut_off}", text)
            if found != 1:
                raise ValueError(f"{policy} has {found} lines `{name}`, not one")
        policy.write_text(text, encoding="utf-8")
