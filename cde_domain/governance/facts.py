"""Facts: the measured numbers that rules are decided on, each with the artefact it was read from."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cde_domain.intervals import Interval

Value = float | bool | str

# What no other report holds: the compliance report measures it itself, on the challenger and the book.
MEASURED_HERE = "compliance_report.json"


class FactError(ValueError):
    """A fact that cannot be: a number that is none, or a metric that nobody knows."""


@dataclass(frozen=True)
class Fact:
    """
    One measured value of a metric, of one group or feature where `subject` names it.

    `value` is None where nothing could be computed. `interval` is its 95 % interval where the value is an estimate.
    `sufficient` is false where there is too little data for a verdict. `not_applicable` says why the portfolio cannot
    have the metric at all. `outdated` says why the value no longer shows that a rule holds; a failure it still shows.

    Raises:
        FactError: the metric is unknown, or a number is not finite.
    """

    metric: str
    artefact: str
    value: Value | None = None
    interval: Interval | None = None
    subject: str = ""
    sufficient: bool = True
    not_applicable: str = ""
    outdated: str = ""

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise FactError(f"{self.artefact}: there is no metric {self.metric!r}")
        numbers = [self.value, *(self.interval or ())]
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            about = f" of {self.subject}" if self.subject else ""
            raise FactError(f"{self.artefact}: {self.metric}{about} is not a finite number")
        if self.value is None and self.sufficient and not self.not_applicable:
            raise FactError(f"{self.artefact}: {self.metric} has no value, and nothing says why")


def counted(artefact: str, counts: Mapping[str, Value]) -> list[Fact]:
    """Facts that are no estimates: counts, shares of a whole, and words."""
    return [Fact(metric, artefact, float(value) if type(value) is int else value) for metric, value in counts.items()]


def not_applicable(artefact: str, why: str, metrics: Iterable[str]) -> list[Fact]:
    """Facts that this portfolio cannot have."""
    return [Fact(metric, artefact, not_applicable=why) for metric in metrics]


# What each metric says. A rule that names another is refused when the rulebook is read.
METRICS: Mapping[str, str] = MappingProxyType(
    {
        "n_protected_inputs": "Fields and features that are a protected attribute by name or give one away",
        "n_undeclared_inputs": "Inputs of the model that the portfolio does not declare",
        "n_forbidden_source_fields": "Fields from contacts, call logs, media, biometrics or social networks",
        "purpose_coverage": "Share of the application's fields with a purpose",
        "source_coverage": "Share of the application's fields with a source",
        "consent_ref_coverage_of_applications": "Share of applications that refer to a consent",
        "retention_class_coverage": "Share of fields with a retention class",
        "days_between_train_end_and_holdout_start": "Days from the last training to the first held-out application",
        "share_labels_matured": "Share of outcomes stated no earlier than they can be known",
        "n_applicants_in_both": "Customers in both training and hold-out set",
        "max_single_feature_auc": "Largest AUC of one feature alone against the outcome",
        "economic_profile_completeness": "Smallest share known of age, occupation and income",
        "schema_violation_rate": "Problems of the loan book by row",
        "max_feature_psi_train_vs_recent_applications": "Largest stability index of a feature, recent applications",
        "n_stores_outside_allowed_regions": "Stores of personal data outside the allowed regions",
        "auc": "Area under the ROC curve",
        "auc_delta_vs_champion": "AUC minus the champion's on the same hold-out",
        "abs_mean_p_minus_observed": "Distance of mean score and repayment rate",
        "calibration_slope": "Slope of the outcome on the score's log-odds",
        "calibration_error": "Expected calibration error; its interval has chance's share taken off",
        "abs_gap_around_approval_cut_off": "Distance of mean score and repayment within 0.05 of the approval cut-off",
        "abs_gap_around_review_cut_off": "Distance of mean score and repayment within 0.05 of the review cut-off",
        "brier_minus_brier_of_unresampled_twin": "Brier score minus that of the same model without resampling",
        "mean_score_shift_before_calibration": "Mean raw score of a resampled model, distance from the repayment rate",
        "mean_score_shift_after_calibration": "Mean score of a resampled model, distance from the repayment rate",
        "n_monotone_violations": "Applicants for whom a feature moves the margin against its direction",
        "n_monotone_points_per_feature": "Points tested of every directed feature",
        "auc_train_minus_holdout": "AUC on the training set minus that on the hold-out",
        "auc_minus_scorecard_auc": "AUC minus the benchmark scorecard's",
        "decision_flip_rate_1pct_noise": "Share of decisions that change when numbers move by 1 %",
        "edge_cases_failed": "Edge cases with an unreasonable answer",
        "gated_impact_ratio": "Approval rate over the reference group's, of attributes that gate",
        "gated_equal_opportunity_difference": "Largest gap of approval among those who repaid, gating attributes",
        "gated_equalized_odds_difference": "Largest gap of approval at equal outcome, gating attributes",
        "reported_impact_ratio": "Approval rate over the reference group's, of attributes that are reported",
        "reported_equal_opportunity_difference": "Largest gap of approval among those who repaid, reported ones",
        "reported_equalized_odds_difference": "Largest gap of approval at equal outcome, reported attributes",
        "abs_smd": "Standardised mean difference of the score to the reference group",
        "abs_group_calibration_gap": "Distance of mean score and repayment rate within a group",
        "overall_auc_minus_group_auc": "AUC of all minus AUC within a group",
        "share_of_pairs_reported": "Share of attribute pairs whose cells are all reported or named as too small",
        "cells_without_interval": "Computed cells of two attributes without an interval",
        "cells_clearly_below": "Cells whose impact ratio lies below the limit by more than chance, after Holm",
        "proxy_auc": "Cross-validated AUC with which all features tell a protected group",
        "single_feature_proxy_auc": "Cross-validated AUC with which one feature tells a protected group",
        "n_distinct_threshold_sets": "Sets of cut-offs in the policy",
        "decisions_changed_by_swapping_protected": "Decisions that change when protected attributes are exchanged",
        "randomised_predictor": "Whether the same application can get two scores",
        "n_candidates": "Candidates in the search for less discriminatory models",
        "alternatives_unanswered": "Less discriminatory models found, neither adopted nor declined by a named person",
        "additivity_error": "Largest distance of base plus contributions from the margin",
        "sign_convention": "What a positive contribution means",
        "share_adverse_with_1_to_4_reasons": "Share of rejections with one to four reasons",
        "reasons_not_in_catalogue": "Rejections with a reason outside the catalogue",
        "banned_generic_reasons": "Catalogue texts that say no more than policy or score",
        "reasons_on_unused_features": "Reasons on features that no tree uses",
        "knockouts_without_own_reason": "Rejections by a rule that do not carry its code",
        "recomputed_reason_match_rate": "Share of rejections whose reasons a second computation confirms",
        "reasons_with_favourable_contribution": "Reasons whose feature spoke for the applicant",
        "top4_overlap_between_two_baselines": "Overlap of the reasons with those against all applicants (Jaccard)",
        "notices_with_two_reasons_of_one_group": "Notices with two reasons of one group of correlated features",
        "repair_rate": "Share not approved whose margin rises when the reasons are mended",
        "share_where_fixing_reasons_beats_random_features": "Share helped more by mending reasons than random features",
        "faithfulness_correlation_mean": "Mean correlation of contributions and effects of mending",
        "top4_jaccard_across_10_backgrounds": "Overlap of the reasons across ten resampled baselines (Jaccard)",
        "rank_corr_under_1pct_noise": "Rank correlation of contributions under 1 % noise",
        "field_completeness": "Share of decision records with every field",
        "hash_chain_breaks": "Breaks in the decision log's chain",
        "decisions_without_log": "Answers without a record",
        "n_replayed": "Decisions replayed",
        "decision_mismatches": "Replayed decisions that differ",
        "max_abs_score_diff": "Largest difference of a replayed score",
        "contest_route_test_passed": "Whether contesting a decision works",
        "reviews_without_named_reviewer_or_reason": "Reviews without a named reviewer or a reason",
        "share_reviews_past_sla": "Share of reviews later than promised",
        "reviewer_agrees_with_model_rate": "Share of reviews that follow the model",
        "days_since_drill": "Days since the kill switch was drilled",
        "seconds_to_stop_auto_decisions": "Seconds from the kill switch to the last automatic decision",
        "auto_decisions_after_stop": "Automatic decisions after the stop",
        "max_days_application_to_notice": "Longest time from application to notice, in days",
        "notices_missing_required_field": "Notices without a required field",
        "notices_without_ai_use_line_and_contact": "Notices without the line on AI and a contact",
        "pii_hits_in_logs_reports_models": "Personal data found in logs, reports and models",
        "canary_recall_of_scanner": "Share of planted personal data that the scan finds",
        "published_cells_below_k": "Published cells of fewer than 10 people",
        "cells_recoverable_by_subtraction": "Suppressed cells that the published ones give away",
        "rows_not_aead": "Rows not encrypted with authentication",
        "nonce_reuse": "Nonces used twice",
        "kek_in_same_store": "Whether the key of keys lies beside what it protects",
        "pseudonym_scheme": "How identifiers become pseudonyms",
        "serving_role_can_read_protected": "Whether the service can read protected attributes",
        "decryptable_after_shred": "Records readable after erasure",
        "hash_chain_breaks_after_shred": "Breaks in the chain after erasure",
        "records_erased_before_legal_minimum": "Records erased too early",
        "records_kept_past_schedule_without_hold": "Records kept too long",
        "missing_required_fields": "Required fields missing from the inventory entry",
        "developer_is_validator_or_approver": "Whether who built the model also validated or approved it",
        "tier": "The model's tier in the inventory",
        "days_since_tier_review": "Days since the tier was reviewed",
        "open_blocking_validation_findings": "Open findings that block",
        "empty_required_card_sections": "Required sections of the card that are empty",
        "lineage_keys_missing": "Missing links from model to data",
        "score_psi": "Population stability index of the score",
        "live_fairness_age_days": "Days since fairness was measured on live decisions",
        "days_since_independent_validation": "Days since somebody else validated the model",
        "promotions_without_configured_authority": "Promotions not made as the portfolio says they must be",
        "overdue_incidents": "Incidents past their date",
    }
)
