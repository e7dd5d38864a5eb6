"""
How often monitoring alarms for nothing, and how often it notices: `python -m benchmarks.monitoring`.

Each try is one drift report over so many decisions. personal_loan: the champion of its own simulated book, with new
simulated applicants in every try. The real books: their rows stand for the population; the reference and the
applicants of a try are drawn from them with replacement, with 20 references in turn.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from rich.console import Console

from cde_domain.decisions.bulk import decide_all
from cde_domain.decisions.monitoring.drift import Watched, feature_references, shifts
from cde_domain.decisions.monitoring.estimated import MEASURES, expected_performance, measures
from cde_domain.decisions.monitoring.reference import Reference, calibration_covariance, decision_codes
from cde_domain.decisions.policy import Policy
from cde_domain.features.table import feature_table, labels_of, matrix_of, split
from cde_domain.intervals import wilson
from cde_domain.loan_book import assemble
from cde_domain.model.metrics import PsiReference, Ranking
from cde_domain.model.scoring_model import ScoringModel
from cde_domain.portfolio import Portfolio, load_portfolio
from cde_domain.training.boosting import BoostingSettings
from cde_domain.training.challenger import cross_fitted_scores, fit_scoring_model, folds_of, out_of_fold_margins

Array = NDArray[np.float64]

ROWS, LONGER = 200, 500
SHIFT = 0.5  # standard deviations
REFERENCES = 20
NEW_APPLICANTS = 100_000


@dataclass(frozen=True)
class Population:
    """Applicants with their scores and decisions, and a champion's reference for each of the things watched."""

    portfolio: Portfolio
    model: ScoringModel
    policy: Policy
    matrix: Array
    scores: Array
    references: tuple[tuple[PsiReference, ...], ...]

    def things(self, rows: NDArray[np.intp], number: int, matrix: Array, scores: Array) -> list[Watched]:
        """What is watched of some rows, against one of the references."""
        features = self.portfolio.features
        decisions = decide_all(features, matrix[rows], scores[rows], self.policy, self.model)
        values = [*matrix[rows].T, scores[rows], decision_codes(decisions)]
        names = [*(feature.name for feature in features), "score", "decision"]
        # What a thing is makes a difference to the words of an alarm alone.
        return [
            Watched(name, "feature", reference, column)
            for name, reference, column in zip(names, self.references[number], values, strict=True)
        ]

    def main_features(self, most: int = 3) -> list[int]:
        """The most important features that are numbers of more than a few values."""
        order = np.argsort(-np.array(self.model.importance))
        return [
            place
            for place in order.tolist()
            if not self.portfolio.features[place].categories and len(np.unique(self.matrix[:, place])) > 30
        ][:most]


def main(
    tries: Annotated[int, typer.Option(min=20, help="Reports for each figure.")] = 500,
    portfolios: Annotated[str, typer.Option(help="Names with commas.")] = "personal_loan,german_credit,lending_club",
) -> None:
    """Print the figures as Markdown tables."""
    console = Console(width=160, soft_wrap=True)
    console.print(
        "| Portfolio | What | Reports | Rows each | Alarms | Share (95 % interval) |\n|---|---|---|---|---|---|"
    )
    for name in portfolios.split(","):
        for line in _drift_lines(name, tries):
            console.print(line)
    if "personal_loan" in portfolios:
        console.print("\n| Drift | Chunks of 500 | Measure | Mean estimate | Truth | Mean error | Outcomes inside |")
        console.print("|---|---|---|---|---|---|---|")
        for line in _estimate_lines():
            console.print(line)


def _drift_lines(name: str, tries: int) -> Iterator[str]:
    portfolio = load_portfolio(name)
    people = _simulated(portfolio) if name == "personal_loan" else _resampled(portfolio)
    random = np.random.default_rng(5)
    rate = portfolio.alarms.false_alarm_rate
    for rows in (ROWS, LONGER, 5_000):
        alarms = sum(_any(people, random, rows, number % len(people.references)) for number in range(tries))
        yield _line(name, f"nothing has changed (stated: {rate:g})", tries, rows, alarms)
    for place in people.main_features():
        moved = people.matrix.copy()
        moved[:, place] += SHIFT * np.nanstd(people.matrix[:, place])
        scores = people.model.scores(moved)
        feature = portfolio.features[place].name
        for rows in (ROWS, LONGER):
            caught = sum(
                feature in _drifted(people, random, rows, number % len(people.references), moved, scores)
                for number in range(tries)
            )
            yield _line(name, f"`{feature}` half a standard deviation higher", tries, rows, caught)


def _any(people: Population, random: np.random.Generator, rows: int, number: int) -> bool:
    return bool(_drifted(people, random, rows, number, people.matrix, people.scores))


def _drifted(
    people: Population, random: np.random.Generator, rows: int, number: int, matrix: Array, scores: Array
) -> set[str]:
    drawn = random.integers(0, len(matrix), rows)
    found = shifts(people.things(drawn, number, matrix, scores), people.portfolio.alarms)
    return {shift.name for shift in found if shift.drifted}


def _line(name: str, what: str, tries: int, rows: int, alarms: int) -> str:
    low, high = wilson(alarms, tries)
    share = f"{alarms / tries:.1%} ({low:.1%} to {high:.1%})"
    return f"| `{name}` | {what} | {tries:,} | {rows:,} | {alarms} | {share} |"


def _table(portfolio: Portfolio, options: Mapping[str, object]) -> pd.DataFrame:
    chosen = portfolio.options.model_validate(options)
    tables = {}
    for source in portfolio.sources:
        rows = source.read(chosen)
        tables[source.name] = rows if isinstance(rows, pd.DataFrame) else pd.concat(list(rows), ignore_index=True)
    return feature_table(portfolio, assemble(portfolio, tables))


def _fitted(portfolio: Portfolio, training: pd.DataFrame) -> ScoringModel:
    policy = Policy.read(portfolio.policy_file)
    return fit_scoring_model(
        portfolio.features,
        matrix_of(portfolio, training),
        labels_of(training),
        training["customer_id"].to_numpy(),
        BoostingSettings(**{**portfolio.boosting, "threads": 1}),
        approve_at=policy.approve_at,
        provenance={"training_rows": len(training)},
    ).scoring_model


def _simulated(portfolio: Portfolio) -> Population:
    """The champion of the default book as the pipeline makes it, and applicants whom it has never seen."""
    training, holdout = split(_table(portfolio, {}), seed=7)
    model, policy = _fitted(portfolio, training), Policy.read(portfolio.policy_file)
    matrix = matrix_of(portfolio, holdout)
    scores = model.scores(matrix)
    decisions = decide_all(portfolio.features, matrix, scores, policy, model)
    reference = Reference.of("holdout", labels_of(holdout), scores, decisions, scores)
    applicants = matrix_of(portfolio, _table(portfolio, {"rows": NEW_APPLICANTS, "seed": 1001}))
    references = ((*feature_references(model), reference.scores, reference.decisions),)
    return Population(portfolio, model, policy, applicants, model.scores(applicants), references)


def _resampled(portfolio: Portfolio) -> Population:
    """A real book as population, scored out of fold; each reference is a training set drawn from it."""
    table = _table(portfolio, {})
    labelled = table[table["repaid"].notna()].reset_index(drop=True)
    model, policy = _fitted(portfolio, labelled), Policy.read(portfolio.policy_file)
    matrix, repaid = matrix_of(portfolio, labelled), labels_of(labelled)
    fold = folds_of(repaid, labelled["customer_id"].to_numpy(), seed=7)
    learner = BoostingSettings(**{**portfolio.boosting, "threads": 1})
    scores = cross_fitted_scores(out_of_fold_margins(portfolio.features, matrix, repaid, fold, learner), repaid, fold)
    decisions = decision_codes(decide_all(portfolio.features, matrix, scores, policy, model))
    random, references = np.random.default_rng(9), []
    for _ in range(REFERENCES):
        drawn = random.integers(0, len(matrix), round(0.8 * len(matrix)))
        columns = [*matrix[drawn].T, scores[drawn], decisions[drawn]]
        references.append(tuple(PsiReference.of(values) for values in columns))
    return Population(portfolio, model, policy, matrix, scores, tuple(references))


def _estimate_lines(chunks: int = 100, rows: int = LONGER) -> Iterator[str]:
    """Estimates on the simulator beside what its true probabilities say, and outcomes drawn from these."""
    from cde_domain.portfolios.personal_loan.options import SimulationOptions
    from cde_domain.portfolios.personal_loan.simulator import true_probability

    portfolio = load_portfolio("personal_loan")
    training, _ = split(_table(portfolio, {}), seed=7)
    model = _fitted(portfolio, training)
    cut_off, random = portfolio.alarms.accuracy_cut_off, np.random.default_rng(3)
    fold = folds_of(labels_of(training), training["customer_id"].to_numpy(), seed=7)
    learner = BoostingSettings(**{**portfolio.boosting, "threads": 1})
    own = matrix_of(portfolio, training)
    margins = out_of_fold_margins(portfolio.features, own, labels_of(training), fold, learner)
    calibration = calibration_covariance(model.calibrator.scores(margins))
    for drift in (0.0, 0.5, 1.0):
        options = {"rows": chunks * rows, "seed": 2002, "drift": drift}
        table = _table(portfolio, options)
        truth = true_probability(SimulationOptions.model_validate(options)).set_index("application_id")["probability"]
        chance = truth.loc[table["application_id"]].to_numpy()
        scores = model.scores(matrix_of(portfolio, table))
        order = random.permutation(len(scores))
        told: dict[str, list[tuple[float, float, bool]]] = {name: [] for name in MEASURES}
        for part in np.array_split(order, chunks):
            estimates = expected_performance(scores[part], cut_off=cut_off, calibration=calibration)
            ranking = Ranking(scores[part])
            true = measures(ranking, scores[part], chance[part], cut_off)
            outcomes = (random.random(len(part)) < chance[part]).astype(np.float64)
            realised = measures(ranking, scores[part], outcomes, cut_off)
            for name in MEASURES:
                one = estimates[name]
                assert one.value is not None and one.interval is not None
                inside = one.interval[0] <= realised[name] <= one.interval[1]
                told[name].append((one.value, true[name], inside))
        for name, values in told.items():
            estimate, true_value = np.mean([value[0] for value in values]), np.mean([value[1] for value in values])
            error = np.mean([abs(value[0] - value[1]) for value in values])
            hits = sum(value[2] for value in values)
            yield (
                f"| {drift:g} | {chunks} | {name} | {estimate:.3f} | {true_value:.3f} | {error:.4f} | "
                f"{hits} of {len(values)} |"
            )


if __name__ == "__main__":
    typer.run(main)
