"""The service on a real PostgreSQL, with a price book in it."""

from collections.abc import Iterable
from uuid import uuid4

import pytest

from modelplane.usage.v1.usage_pb2 import Usage
from services.reports.service import Reports
from services.reports.settings import ReportsSettings
from services.storage import Database
from tests.services.ledger import written
from tests.services.reports.records import NOVEMBER_S, PRICES


class Desk:
    """The service, and a way to have used something. It is the tenth of November."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now_s = float(NOVEMBER_S + 9 * 86_400)
        self.reports = self.with_settings(ReportsSettings())

    def with_settings(self, settings: ReportsSettings) -> Reports:
        return Reports(self.database, settings, clock=lambda: self.now_s)

    async def drain(self, usages: Iterable[Usage]) -> list[Usage]:
        """Books copies of the records, of organisations and requests that nobody had before; returns them."""
        life = uuid4().hex
        copies = [Usage.FromString(usage.SerializeToString()) for usage in usages]
        for usage in copies:
            usage.request_id = f"{usage.request_id}_{life}"
            usage.attribution.organization_id = f"{usage.attribution.organization_id}_{life}"
        await written.add_usage(self.database, copies)
        return copies


@pytest.fixture
async def desk(database: Database) -> Desk:
    await written.add_prices(database, prices=PRICES)
    return Desk(database)
