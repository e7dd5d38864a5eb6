"""The champion as a starting point: named by the signed ledger, described by its signed evidence."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd

from cde_domain.model.scoring_model import model_digest
from cde_domain.portfolio import Portfolio
from cde_domain.release import BundleError
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource
from cde_serving.evidence import EvidenceError, verify_pack
from cde_serving.ledger import LedgerError
from cde_serving.signing import SignatureError

if TYPE_CHECKING:  # scikit-learn and XGBoost take seconds to import
    from cde_domain.training.continuation import ContinuedLearner
    from cde_domain.training.learner import TreeLearner


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what training refuses into a failure that says it to a person."""
    from cde_domain.training.continuation import ContinuationError
    from cde_domain.training.options import TrainingOptionError

    try:
        yield
    except (ContinuationError, TrainingOptionError) as error:
        raise dg.Failure(f"training refused: {error}", allow_retries=False) from error


def champion_to_continue(releases: ReleasesResource, portfolio: PortfolioResource, rounds: int) -> "ContinuedLearner":
    """
    The learner that adds rounds behind the champion's trees.

    Raises:
        ContinuationError: there is no champion, it cannot be verified, is not XGBoost, or has other features.
        dagster.Failure: its library file is not the one that was stored.
    """
    from cde_domain.training.boosting import BoostingSettings
    from cde_domain.training.continuation import ContinuationError, continued, same_features

    lending = portfolio.load()
    store = releases.store()
    try:
        entry = store.ledger.current()
        if entry is None:
            raise ContinuationError("there is no champion to continue yet: train in mode full")
        champion = store.load(entry)
        pack = verify_pack(store.evidence / entry.evidence, releases.trusted())
    except (LedgerError, BundleError, EvidenceError, SignatureError) as error:
        raise ContinuationError(f"the champion cannot be verified ({error}): train in mode full") from error
    record, digest = pack.report("reports/challenger_model.json"), model_digest(champion.folder / "model")
    if record["digest"] != digest:
        raise ContinuationError(f"the champion's evidence is not about model {digest[:12]}: train in mode full")
    provenance = record["provenance"]
    if provenance.get("learner") != BoostingSettings.kind:
        raise ContinuationError(f"the champion is {provenance.get('kind')}, not XGBoost: train in mode full")
    if "learned_from" not in record or "winsorised_at" in provenance:
        raise ContinuationError("the champion's record does not say what it learned from: train in mode full")
    same_features(champion.portfolio.features, lending.features)
    settings = BoostingSettings(**provenance["parameters"])
    trees = settings.load(lending.features, portfolio.library_file(digest, record["library"]))
    origin = {"model_digest": digest, "library": record["library"], "learned_from": record["learned_from"]}
    return continued(trees, settings, rounds, origin)


def chosen_learner(portfolio: PortfolioResource, chosen: dict[str, Any]) -> "TreeLearner":
    """The learner that `candidate_models` chose, a continued champion with its verified trees."""
    from cde_domain.training.boosting import BoostingSettings
    from cde_domain.training.candidates.descriptions import learner_of
    from cde_domain.training.continuation import ContinuedLearner

    if "continued" not in chosen:
        return learner_of(chosen)
    settings, origin = BoostingSettings(**chosen["settings"]), dict(chosen["continued"])
    rounds = origin.pop("rounds")
    path = portfolio.library_file(origin["model_digest"], origin["library"])
    return ContinuedLearner(replace(settings, rounds=rounds), settings.load(portfolio.load().features, path), origin)


@dataclass(frozen=True)
class TrainingRows:
    """
    What a model is fitted on, `fit`, and what a continued champion learned from before, as far as it is in the book.

    `learned` lists every application that the model has met once it is fitted.
    """

    fit: pd.DataFrame
    known: pd.DataFrame
    learned: pd.DataFrame


def training_rows(
    portfolio: PortfolioResource, lending: Portfolio, origin: dict[str, Any] | None, training_set: pd.DataFrame
) -> TrainingRows:
    """The rows to fit on: the whole training set, or of a continued champion those that are new to it."""
    from cde_domain.training.continuation import learned_rows, new_loans

    if origin is None:
        return TrainingRows(training_set, training_set.head(0), learned_rows(lending.features, training_set))
    before = learned_by(portfolio, origin)
    new = new_loans(lending.features, training_set, before)
    known = training_set[training_set["application_id"].isin(before["application_id"])]
    return TrainingRows(new, known, pd.concat([before, learned_rows(lending.features, new)], ignore_index=True))


def learned_by(portfolio: PortfolioResource, origin: dict[str, Any]) -> pd.DataFrame:
    """The applications, and their customers, that a model learned from."""
    return portfolio.learned_from({"digest": origin["model_digest"], "learned_from": origin["learned_from"]})
