"""The decision log's database is of this version and of one master key."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from cde_serving.decision_log import LogUnavailableError
from cde_serving.records.database import open_reader
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
    with pytest.raises(LogUnavailableError, match=f"log of {NAME}"):
        open_reader(log_url, "car_loans")

    open_log(written.folder, log_url).close()
    open_reader(log_url, NAME).dispose()


@pytest.mark.parametrize("others", [0, 1])
def test_a_log_of_before_belongs_to_the_portfolio_of_all_its_decisions(
    written: Written, log_url: str, others: int
) -> None:
    """One that several portfolios wrote to is opened by none of them."""
    with written.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE vault DROP COLUMN portfolio"))
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0005'"))
        connection.execute(sa.text(f"UPDATE records SET portfolio = 'car_loans' WHERE sequence <= {others}"))
    open_reader(log_url, "car_loans").dispose()  # it does not say yet

    owner = "several portfolios" if others else RECORD.portfolio
    for name in ("car_loans", RECORD.portfolio) if others else ("car_loans",):
        with pytest.raises(LogUnavailableError, match=f"log of {owner}"):
            open_log(written.folder, log_url, portfolio=name)
    if not others:
        open_log(written.folder, log_url, portfolio=RECORD.portfolio).close()


def test_a_log_of_before_without_decisions_is_claimed_once(tmp_path: Path, log_url: str) -> None:
    open_log(tmp_path, log_url).close()
    engine = sa.create_engine(log_url)
    with engine.begin() as connection:
        connection.execute(sa.update(metadata.tables["vault"]).values(portfolio=None))
    engine.dispose()

    open_log(tmp_path, log_url, portfolio="car_loans").close()

    with pytest.raises(LogUnavailableError, match="log of car_loans"):
        open_log(tmp_path, log_url)
