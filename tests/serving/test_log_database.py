"""The decision log's database is of this version and of one master key."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from cde_serving.decision_log import LogUnavailableError
from cde_serving.records.schema import metadata
from tests.serving.helpers import RECORD, open_log
from tests.serving.written_log import RECORDS, Written
from tests.support import NAME


def test_the_migrations_make_the_tables_that_the_code_uses(written: Written) -> None:
    """Alembic finds no difference between the database and the schema."""
    with written.engine.connect() as connection:
        assert [] == compare_metadata(MigrationContext.configure(connection), metadata)


def test_opening_a_log_again_changes_nothing(written: Written, log_url: str) -> None:
    """Migrations run at every start."""
    open_log(written.folder, log_url).close()

    assert RECORDS == written.verify().records


def test_a_log_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    """Decisions that were kept in the clear are not mixed with these."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'decisions.sqlite'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE decisions (sequence INTEGER)")

    with pytest.raises(LogUnavailableError, match="earlier version"):
        open_log(tmp_path)


def test_another_master_key_is_refused(written: Written, log_url: str) -> None:
    """A service with the wrong key would know no customer again."""
    (written.folder / "master.key").write_text("ab" * 32)

    with pytest.raises(LogUnavailableError, match="master key"):
        open_log(written.folder, log_url)


def test_another_portfolio_is_refused(written: Written, log_url: str) -> None:
    """It would answer an idempotency key, tell of a decision and erase a customer that are not its own."""
    with pytest.raises(LogUnavailableError, match=f"log of {NAME}: give car_loans a database of its own"):
        open_log(written.folder, log_url, portfolio="car_loans")

    open_log(written.folder, log_url).close()


def test_a_log_that_does_not_say_whose_it_is_belongs_to_the_portfolio_of_all_its_records(
    written: Written, log_url: str
) -> None:
    """One that several portfolios wrote to is opened by none of them."""
    vault = metadata.tables["vault"]
    with written.engine.begin() as connection:
        connection.execute(sa.update(vault).values(portfolio=None))
    with pytest.raises(LogUnavailableError, match="log of other portfolios"):
        open_log(written.folder, log_url, portfolio="car_loans")

    open_log(written.folder, log_url, portfolio=RECORD.portfolio).close()
    with written.engine.begin() as connection:
        assert RECORD.portfolio == connection.execute(sa.select(vault.c.portfolio)).scalar_one()

        connection.execute(sa.update(vault).values(portfolio=None))
        connection.execute(sa.text("UPDATE records SET portfolio = 'car_loans' WHERE sequence = 1"))
    for name in (RECORD.portfolio, "car_loans"):
        with pytest.raises(LogUnavailableError, match="log of other portfolios"):
            open_log(written.folder, log_url, portfolio=name)
