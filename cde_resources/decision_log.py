"""The decision log of a portfolio, to be read: its database, and the keys that open and verify it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import dagster as dg
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from cde_serving.records.database import LogUnavailableError, open_reader
from cde_serving.records.store import RecordStore
from cde_serving.records.vault import MasterKey, VaultError
from cde_serving.records.verify import Verification, verify_log
from cde_serving.settings import Settings
from cde_serving.signing import SignatureError, TrustedKeys


@dataclass(frozen=True)
class OpenLog:
    """A decision log's database, open for reading, and the master key that its records are read with."""

    engine: Engine
    master: MasterKey

    def store(self) -> RecordStore:
        """The decisions, one by one."""
        return RecordStore(self.engine, self.master)


class DecisionLogResource(dg.ConfigurableResource):
    """Where the decisions of one portfolio are recorded, its checkpoints, and the files of the keys."""

    portfolio: str
    url: str
    master_key: str
    checkpoints: str
    public_key: str

    @classmethod
    def of(cls, settings: Settings, portfolio: str) -> Self:
        """As the settings say."""
        return cls(
            portfolio=portfolio,
            url=settings.log_url(portfolio),
            master_key=str(settings.master_key_file()),
            checkpoints=str(settings.checkpoints_file(portfolio)),
            public_key=str(settings.log_public_key_file()),
        )

    @contextmanager
    def open(self) -> Iterator[OpenLog]:
        """
        The log, closed again afterwards.

        Raises:
            LogUnavailableError: there is none yet, it cannot be reached, it is another portfolio's, or its master key
                cannot be read.
        """
        engine = open_reader(self.url, self.portfolio)
        try:
            try:
                master = MasterKey.open(Path(self.master_key), create=False)
            except VaultError as error:
                raise LogUnavailableError(f"the decision log cannot be read: {error}") from error
            yield OpenLog(engine, master)
        except sa.exc.SQLAlchemyError as error:  # its message can quote what was asked for
            raise LogUnavailableError(f"the decision log cannot be read: {type(error).__name__}") from error
        finally:
            engine.dispose()

    def verify(self) -> Verification:
        """
        Verify all chains against their signed checkpoints.

        Raises:
            LogUnavailableError: the log cannot be read, or there is no key to verify it with.
        """
        try:
            trusted = TrustedKeys.read(Path(self.public_key))
        except SignatureError as error:
            raise LogUnavailableError(f"the decision log cannot be verified: {error}") from error
        with self.open() as log:
            return verify_log(log.engine, Path(self.checkpoints), trusted, log.master)
