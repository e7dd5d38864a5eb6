"""A portfolio: everything a loan product is, in one folder with one Python module."""

import datetime
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, TypeAdapter

from cde_domain.application import columns_of
from cde_domain.features.feature import Feature

if TYPE_CHECKING:
    import pandas as pd  # the service decides without it

SHIPPED = "cde_domain.portfolios"
MIN_ALTERNATIVES = 20


class PortfolioError(ValueError):
    """A portfolio that cannot be loaded or contradicts itself."""


class SourceOptions(BaseModel):
    """Base of a portfolio's options: what a run may change about where raw rows come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Source:
    """
    Where raw rows of one kind come from.

    `read` takes the portfolio's options and returns the rows, or an iterator of chunks with the same columns.
    """

    name: str
    description: str
    read: Callable[[Any], Any]


@dataclass(frozen=True)
class OutcomeLabel:
    """
    The label of a loan: `column` holds `good` or `bad` (or nothing while the loan is young).

    With `matures_after_days` set, the loan book must be dated: an outcome counts only if `known_at` lies at least so
    many days after `applied_at`.
    """

    column: str
    good: Any
    bad: Any
    matures_after_days: int | None = None


@dataclass(frozen=True)
class ProtectedAttribute:
    """
    An attribute that fairness is measured by and that no decision may see.

    `groups` takes the joined loan book and returns each applicant's group (missing where unknown). A `gate` can stop a
    promotion, a `report` is shown; `why` says why it is the one or the other.
    """

    name: str
    groups: "Callable[[pd.DataFrame], pd.Series]"
    use: Literal["gate", "report"]
    why: str


class UnknownCategoryError(ValueError):
    """Values of a column that have no group; `rows` says where, nothing says which."""

    def __init__(self, column: str, rows: "pd.Series") -> None:
        super().__init__(f"{column} has values that belong to no group")
        self.column = column
        self.rows = rows


def groups_by_value(book: "pd.DataFrame", column: str, groups: Mapping[Any, str]) -> "pd.Series":
    """
    The group of each row by the value of one column, missing where the value is.

    Raises:
        UnknownCategoryError: a value has no group; taking it for any would hide it from the fairness analysis.
    """
    found = book[column].map(groups)
    strange = book[column].notna() & found.isna()
    if strange.any():
        raise UnknownCategoryError(column, strange)
    return found


@dataclass(frozen=True)
class Economics:
    """What a good loan earns and a bad one costs, as shares of the amount lent."""

    margin: float
    loss_given_default: float

    @property
    def break_even(self) -> float:
        """The probability of repayment at which a loan earns nothing."""
        return self.loss_given_default / (self.margin + self.loss_given_default)


@dataclass(frozen=True)
class Thresholds:
    """
    The numbers a challenger must reach.

    `max_decision_ms` is what one explained decision may take in process, at the median and without the network. A less
    discriminatory model may lose `alternative_auc_tolerance` in AUC and must raise a group's impact ratio by
    `alternative_min_gain`.
    """

    min_auc: float = 0.70
    max_calibration_error: float = 0.03
    max_single_feature_auc: float = 0.90
    max_auc_loss_to_champion: float = 0.01
    min_adverse_impact_ratio: float = 0.80
    max_approval_rate: float = 0.98
    max_book_psi: float = 0.25
    min_loans: int = 500
    min_bad_loans: int = 50
    max_decision_ms: float = 2.0
    alternative_auc_tolerance: float = 0.005
    alternative_min_gain: float = 0.02


@dataclass(frozen=True, kw_only=True)
class DeclinedAlternative:
    """
    Why a named person does not adopt less discriminatory models that the search found, from `date` until `expires`.

    `candidates` are their names in the report. The answer travels with the portfolio's code, which is signed.
    """

    candidates: tuple[str, ...]
    name: str
    role: str
    date: datetime.date
    expires: datetime.date
    reason: str

    def __post_init__(self) -> None:
        if not self.candidates or isinstance(self.candidates, str):
            raise PortfolioError("a declined alternative needs `candidates`, a tuple of names from the report")
        if len(self.name) < 3 or len(self.role) < 2 or len(self.reason) < 10:
            raise PortfolioError(
                f"declining {self.candidates[0]!r} needs the name, the role and the reason of a person"
            )
        if self.expires <= self.date:
            raise PortfolioError(f"declining {self.candidates[0]!r} expires before it begins")

    def holds_on(self, day: datetime.date) -> bool:
        """Whether the answer holds on a day."""
        return self.date <= day < self.expires


@dataclass(frozen=True)
class Creditor:
    """
    Who signs the notices.

    `supervisor` is the authority that a notice must name, with its address (in the US, 12 CFR 1002.9(b)(1)), and
    `bureau` the agency whose reports are used, with address and telephone number (FCRA section 615(a)).
    """

    name: str
    address: str
    contact: str
    supervisor: str = ""
    bureau: str = ""


@dataclass(frozen=True)
class Inventory:
    """
    The model's entry in the lender's inventory, as the lender keeps it.

    `owner`, `developer` and `validator` name people or teams; `open_findings` are findings of the validation that must
    be closed before a promotion.
    """

    owner: str
    developer: str
    validator: str
    tier: Literal["high", "medium", "low"]
    tier_reviewed_on: date
    open_findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Enrichment:
    """
    A part of the application that the service may ask the credit bureau for where a request leaves it out.

    `field` is a field of the application, `answer` the model that the bureau's answer must hold to; what holds to it
    becomes the field. It must be possible to decide without: the field is optional, or `{}` is a value of it.
    """

    field: str
    answer: type[BaseModel]

    def absent(self, application: type[BaseModel]) -> dict[str, Any]:
        """
        What stands in a request for this part when it is unknown.

        Raises:
            PortfolioError: the application has no such field, or cannot do without.
        """
        field = application.model_fields.get(self.field)
        if field is None:
            raise PortfolioError(f"{application.__name__} has no field {self.field!r} to be enriched")
        if not field.is_required():
            return {}
        try:
            TypeAdapter[Any](cast(Any, field.annotation)).validate_python({})
        except ValueError as error:
            raise PortfolioError(
                f"the field {self.field!r} cannot be enriched: it is required, and {{}} is no value of it"
            ) from error
        return {self.field: {}}


INTENDED_USE = "Decisions on applications of this portfolio, with a person deciding what the policy sends to review."
OUT_OF_SCOPE = (
    "Other products or other groups of customers than those of the loan book.",
    "Setting prices, limits or terms.",
    "Any use without the review by a person that the policy asks for.",
)
ETHICAL_CONSIDERATIONS = (
    "A refusal can keep a person from housing, work or care, and a loan that cannot be repaid can harm more than that.",
    "Protected attributes are read to measure fairness and by nothing else; no decision sees them. Other features can "
    "still stand for them, which is why the card says how much the features give away.",
    "Every rejected applicant gets the main reasons, and a person looks at what the policy sends to review.",
)
RECOMMENDATIONS = (
    "Compare scores and outcomes by quarter once loans mature, and groups too small for a verdict as they grow.",
    "Let a person decide near the cut-offs, where an error in the score changes the decision.",
)


@dataclass(frozen=True, kw_only=True)
class Portfolio:
    """
    One loan product.

    `join` takes the raw tables by source name and returns one row per application as known on its
    application date, with dotted column names for nested fields. `application_id`, `customer_id` and `applied_at` are
    numbered, copied or left empty where the join gives none; `outcome_known_at` is required for a dated portfolio.
    `boosting` overrides XGBoost's hyperparameters; `tuning_budget` is how many settings of each kind of trees (at most
    three) are compared on the folds. `alternatives` is how many candidates the search for less discriminatory models
    tries, 20 or more. `enrichment` is what may be asked of the bureau. From `intended_use` on, it is what the model
    card says in the lender's own words; without an `inventory` entry the rule that asks for one stays open.
    """

    name: str
    title: str
    description: str
    application: type[BaseModel]
    features: tuple[Feature, ...]
    outcome: OutcomeLabel
    sources: tuple[Source, ...]
    join: "Callable[[Mapping[str, pd.DataFrame]], pd.DataFrame]"
    policy_file: Path
    example: Mapping[str, Any]
    economics: Economics
    creditor: Creditor
    protected: tuple[ProtectedAttribute, ...] = ()
    options: type[SourceOptions] = SourceOptions
    thresholds: Thresholds = Thresholds()
    promotion: Literal["automatic", "approval_required"] = "automatic"
    jurisdiction: Literal["IN", "US", "EU"] = "IN"
    boosting: Mapping[str, Any] = field(default_factory=dict)
    tuning_budget: int = 3
    alternatives: int = 24
    declined_alternatives: tuple[DeclinedAlternative, ...] = ()
    enrichment: Enrichment | None = None
    intended_use: str = INTENDED_USE
    out_of_scope: tuple[str, ...] = OUT_OF_SCOPE
    ethical_considerations: tuple[str, ...] = ETHICAL_CONSIDERATIONS
    limits: tuple[str, ...] = ("Nothing is known of applicants to whom no loan was granted.",)
    recommendations: tuple[str, ...] = RECOMMENDATIONS
    references: tuple[str, ...] = ()
    inventory: Inventory | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise PortfolioError(f"{self.name!r} is no name for a portfolio: use letters, digits and _")
        for kind, names in (
            ("feature", [feature.name for feature in self.features]),
            ("source", [source.name for source in self.sources]),
            ("protected attribute", [attribute.name for attribute in self.protected]),
        ):
            if not names and kind != "protected attribute":
                raise PortfolioError(f"portfolio {self.name} has no {kind}")
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise PortfolioError(f"portfolio {self.name} has the {kind} {twice[0]} twice")
        if self.alternatives < MIN_ALTERNATIVES:
            raise PortfolioError(
                f"portfolio {self.name} has alternatives={self.alternatives}: at least {MIN_ALTERNATIVES} are searched"
            )
        for tolerance in ("alternative_auc_tolerance", "alternative_min_gain"):
            if not 0 < getattr(self.thresholds, tolerance) < 1:
                raise PortfolioError(f"portfolio {self.name}: {tolerance} must lie between 0 and 1")
        if self.enrichment is not None:
            self.enrichment.absent(self.application)
        columns_of(self.application)  # a field of a kind that cannot be served is refused here, by name


def load_portfolio(reference: str) -> Portfolio:
    """
    Load a portfolio by shipped name (`german_credit`) or import path (`my_bank.car_loans:PORTFOLIO`).

    The working directory is searched too, so that a portfolio in any folder can be named from there.

    Raises:
        PortfolioError: there is no such portfolio, or it contradicts itself.
    """
    module, _, attribute = reference.partition(":")
    if not attribute:
        module, attribute = f"{SHIPPED}.{reference}", "PORTFOLIO"
    try:
        return _attribute(_import(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise PortfolioError(
            f"there is no portfolio {reference!r}: give one of {', '.join(shipped_portfolios())}, "
            "or an import path such as my_bank.car_loans:PORTFOLIO"
        ) from error


def shipped_portfolios() -> tuple[str, ...]:
    """The names of the portfolios in this package."""
    return tuple(sorted(path.parent.name for path in (Path(__file__).parent / "portfolios").glob("*/__init__.py")))


def _import(module: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    return importlib.import_module(module)


def _attribute(module: ModuleType, attribute: str) -> Portfolio:
    portfolio = getattr(module, attribute, None)
    if not isinstance(portfolio, Portfolio):
        raise PortfolioError(f"{module.__name__}:{attribute} is not a Portfolio")
    return portfolio


@dataclass(frozen=True)
class PortfolioCode:
    """The files that define a portfolio, as they travel with a model: relative path to source file."""

    module: str
    attribute: str
    files: Mapping[str, Path]


def portfolio_code(reference: str) -> PortfolioCode:
    """
    The code of a portfolio: the Python and YAML files of its package, or its module and policy where it has none.

    Siblings are imported relatively, so that the copy in a bundle runs under another name.
    """
    module_name, _, attribute = reference.partition(":")
    if not attribute:
        module_name, attribute = f"{SHIPPED}.{reference}", "PORTFOLIO"
    module = _import(module_name)
    portfolio = _attribute(module, attribute)
    path = Path(str(module.__file__))
    if path.name != "__init__.py" and "." not in module_name:
        files = {path.name: path, portfolio.policy_file.name: portfolio.policy_file}
        return PortfolioCode(path.stem, attribute, files)
    folder = path.parent
    found = sorted(file for pattern in ("*.py", "*.yaml") for file in folder.rglob(pattern))
    return PortfolioCode(path.stem, attribute, {file.relative_to(folder).as_posix(): file for file in found})


def load_portfolio_copy(folder: Path, module: str, attribute: str, package: str) -> Portfolio:
    """
    Load a portfolio from a folder that holds a copy of its code, as part of the package named `package`.

    Two versions of a portfolio live in one process under two package names. Whoever loads has verified the files.
    """
    # No bytecode beside the copy: a changed cache would be run in place of the verified source.
    writes_bytecode, sys.dont_write_bytecode = not sys.dont_write_bytecode, True
    try:
        if package not in sys.modules:
            _import_package(folder, package)
        loaded = sys.modules[package] if module == "__init__" else importlib.import_module(f"{package}.{module}")
    finally:
        sys.dont_write_bytecode = not writes_bytecode
    return _attribute(loaded, attribute)


def _import_package(folder: Path, package: str) -> None:
    entry = folder / "__init__.py"
    if not entry.exists():
        parent = ModuleType(package)
        parent.__path__ = [str(folder)]
        sys.modules[package] = parent
        return
    spec = importlib.util.spec_from_file_location(package, entry, submodule_search_locations=[str(folder)])
    assert spec is not None and spec.loader is not None
    sys.modules[package] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(sys.modules[package])
    except BaseException:
        del sys.modules[package]
        raise
