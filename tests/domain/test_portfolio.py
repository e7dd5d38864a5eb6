"""Portfolios: which are found, which are refused, and what every shipped one must hold."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cde_domain.application import Application, ColumnSpec, Pii, columns_of, field
from cde_domain.decisions.engine import check_policy
from cde_domain.decisions.policy import Policy
from cde_domain.portfolio import Portfolio, PortfolioError, load_portfolio, portfolio_code, shipped_portfolios
from tests.support import REFERENCE, TinyLoans


def test_three_portfolios_are_shipped():
    assert shipped_portfolios() == ("german_credit", "lending_club", "personal_loan")


def test_an_unknown_portfolio_is_refused_with_the_known_names():
    with pytest.raises(PortfolioError, match=r"no portfolio 'germna_credit': give one of german_credit, lending_club"):
        load_portfolio("germna_credit")


@pytest.mark.parametrize("reference", ["my_bank.car_loans:PORTFOLIO", "nowhere:PORTFOLIO"])
def test_an_import_path_that_leads_nowhere_is_refused(reference: str):
    with pytest.raises(PortfolioError, match=f"there is no portfolio '{reference}'"):
        load_portfolio(reference)


def test_a_portfolio_that_needs_a_missing_library_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "needs_more.py").write_text("import no_such_library\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        load_portfolio("needs_more:PORTFOLIO")


@pytest.mark.parametrize("attribute", ["PORTFOLIOS", "MODULE"])
def test_an_attribute_that_is_no_portfolio_is_refused(attribute: str, tiny: TinyLoans):
    with pytest.raises(PortfolioError, match=f"tiny_loans:{attribute} is not a Portfolio"):
        load_portfolio(f"tiny_loans:{attribute}")


def test_a_portfolio_outside_the_repository_is_loaded_by_import_path(tiny: TinyLoans):
    assert load_portfolio(REFERENCE) is tiny.portfolio


def test_a_portfolio_in_the_working_directory_is_found(
    tiny: TinyLoans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "loans_right_here.py").write_text("from tiny_loans import PORTFOLIO\n", encoding="utf-8")
    monkeypatch.setattr("sys.path", [entry for entry in __import__("sys").path if entry])
    monkeypatch.chdir(tmp_path)

    assert load_portfolio("loans_right_here:PORTFOLIO") is tiny.portfolio


def test_the_code_of_a_package_travels_whole(tiny: TinyLoans):
    code = portfolio_code(REFERENCE)

    assert (code.module, code.attribute) == ("__init__", "PORTFOLIO")
    assert set(code.files) == {"__init__.py", "policy.yaml"}


@pytest.mark.parametrize("kind", ["features", "sources"])
def test_a_portfolio_without_features_or_sources_is_refused(kind: str, tiny: TinyLoans):
    with pytest.raises(PortfolioError, match=f"portfolio tiny_loans has no {kind.removesuffix('s')}"):
        replace(tiny.portfolio, **{kind: ()})


def test_a_feature_named_twice_is_refused(tiny: TinyLoans):
    with pytest.raises(PortfolioError, match="has the feature annual_income twice"):
        replace(tiny.portfolio, features=(*tiny.portfolio.features, tiny.portfolio.features[0]))


@pytest.mark.parametrize("name", ["car-loans", "car loans", "", "../loans", "1st"])
def test_a_name_that_cannot_be_a_folder_and_an_asset_is_refused(name: str, tiny: TinyLoans):
    with pytest.raises(PortfolioError, match="is no name for a portfolio"):
        replace(tiny.portfolio, name=name)


def test_a_field_of_a_kind_that_cannot_be_served_is_refused_by_name(tiny: TinyLoans):
    class Strange(Application):
        anything: dict = field("Anything", purpose="test")

    with pytest.raises(TypeError, match="anything: an application field cannot be"):
        replace(tiny.portfolio, application=Strange)


def test_a_whole_number_without_an_upper_bound_is_refused_by_name(tiny: TinyLoans):
    class Boundless(Application):
        term: int = field("Term", purpose="test", ge=1)

    with pytest.raises(TypeError, match="term: a whole number needs an upper bound"):
        replace(tiny.portfolio, application=Boundless)


def test_a_loan_breaks_even_where_its_margin_pays_for_its_losses(tiny: TinyLoans):
    assert tiny.portfolio.economics.break_even == pytest.approx(0.5 / 0.6)


@pytest.fixture(params=shipped_portfolios())
def shipped(request: pytest.FixtureRequest) -> Portfolio:
    return load_portfolio(request.param)


def all_columns(columns: tuple[ColumnSpec, ...]) -> Iterator[ColumnSpec]:
    for column in columns:
        yield column
        yield from all_columns(column.items)


def test_a_shipped_portfolio_bears_the_name_of_its_folder(shipped: Portfolio):
    assert load_portfolio(shipped.name) is shipped


def test_every_shipped_example_is_a_valid_request(shipped: Portfolio):
    request = json.dumps(dict(shipped.example))

    assert shipped.application.model_validate_json(request).customer_id == shipped.example["customer_id"]


def test_every_shipped_policy_fits_its_portfolio(shipped: Portfolio):
    check_policy(shipped, Policy.read(shipped.policy_file))


def test_every_field_of_a_shipped_application_is_in_the_data_dictionary(shipped: Portfolio):
    for column in all_columns(columns_of(shipped.application)):
        assert column.description and column.purpose and column.source, column.name
        assert column.pii in set(Pii), column.name


def test_every_feature_of_a_shipped_portfolio_can_be_explained(shipped: Portfolio):
    for feature in shipped.features:
        assert feature.description and feature.reason, feature.name
        assert feature.reason_text(known=False).startswith("Not known: ")
    assert len({feature.reason for feature in shipped.features}) == len(shipped.features)


def test_no_protected_attribute_is_a_field_or_a_feature_of_a_shipped_portfolio(shipped: Portfolio):
    protected = {attribute.name for attribute in shipped.protected}
    asked_for = {part for column in all_columns(columns_of(shipped.application)) for part in column.path}

    assert not protected & asked_for
    assert not protected & {feature.name for feature in shipped.features}


def test_every_protected_attribute_says_why_it_gates_or_reports(shipped: Portfolio):
    assert all(attribute.why and attribute.use in ("gate", "report") for attribute in shipped.protected)


def test_a_shipped_card_can_say_what_the_model_is_for_and_what_it_is_not(shipped: Portfolio):
    assert shipped.description and shipped.intended_use and shipped.limits and shipped.references
