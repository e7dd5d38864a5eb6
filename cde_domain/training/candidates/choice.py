"""Which candidate becomes the challenger."""

from collections.abc import Callable, Iterable

from cde_domain.training.candidates.cross_validation import CrossValidated, PairedDifference

RULE = (
    "On the same folds, with the customers of a fold in no other, the portfolio's XGBoost settings stay unless another "
    "candidate has a mean AUC higher by more than one standard error of the paired differences and a mean Brier score "
    "that is not higher, can be compiled, and is explained within the portfolio's limit for a decision."
)


def best_of(tried: Iterable[CrossValidated]) -> CrossValidated:
    """
    The first one, unless later ones replace it; then that of the highest AUC.

    A later one replaces it with a higher AUC, by more than one standard error, and a Brier score that is not higher: a
    better order of the applicants is not bought with worse probabilities, which the cut-offs are about.
    """
    first, *others = tried
    better = [
        other
        for other in others
        if PairedDifference.of(other, first).exceeds_one_error and other.brier.mean() <= first.brier.mean()
    ]
    return max(better, key=lambda candidate: candidate.auc.mean(), default=first)


def choose(
    candidates: Iterable[CrossValidated], unfit: Callable[[CrossValidated], str] = lambda _: ""
) -> tuple[CrossValidated, str]:
    """
    The candidate that becomes the challenger, and why; XGBoost comes first.

    `unfit` says why another that would win cannot be served, or nothing; then the next best is looked at.
    """
    first, *others = candidates
    refused: list[str] = []
    while (chosen := best_of([first, *others])) is not first and (why := unfit(chosen)):
        others = [other for other in others if other is not chosen]
        refused.append(f"; {chosen.kind} cannot be served: {why}")
    passed_over = "".join(refused)
    if chosen is not first:
        difference, brier = PairedDifference.of(chosen, first), PairedDifference.of(chosen, first, "brier")
        return chosen, (
            f"{chosen.kind} has a mean AUC of {chosen.auc.mean():.4f} over {len(chosen.auc)} folds, "
            f"{difference.mean:.4f} above {first.kind}: more than one standard error ({difference.standard_error:.4f})"
            f"; its Brier score differs by {brier.mean:+.5f}{passed_over}"
        )
    rivals = [
        (PairedDifference.of(other, first), PairedDifference.of(other, first, "brier"), other.kind) for other in others
    ]
    said = [
        f"{kind} differs by {difference.mean:+.4f} (standard error {difference.standard_error:.4f}), "
        f"in its Brier score by {brier.mean:+.5f}"
        for difference, brier, kind in rivals
    ]
    return first, (
        f"{first.kind} has a mean AUC of {first.auc.mean():.4f} over {len(first.auc)} folds, and no other candidate "
        f"that can be served is better by more than one standard error without a higher Brier score"
        + (f": {'; '.join(said)}" if said else "")
        + passed_over
    )
