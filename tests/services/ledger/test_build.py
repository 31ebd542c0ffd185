"""The ledger as a platform starts and stops it."""

import asyncio
import json
from pathlib import Path

import pytest

from modelplane.ledger.v1.ledger_api import LedgerService
from modelplane.ledger.v1.ledger_pb2 import GrantCreditsRequest, ListPostingsRequest, ListPricesRequest
from modelplane.tenants.v1.tenants_api import TenantsService
from modelplane.tenants.v1.tenants_pb2 import CreateOrganizationRequest
from services.compose import Platform
from services.ledger.service import Ledger
from services.ledger.settings import LedgerSettings
from services.pricing import defaults
from services.settings import Environment, SettingsError
from services.storage import Database
from services.tenants.service import Tenants
from tests.services.ledger.conftest import Clock, grant, postings

FILE = """
[[models]]
name = "dear"
engine = "scripted"
price = { input = 0.15, output = 0.6 }

[[models]]
name = "open"
engine = "scripted"
free = true
"""


def platform(home: Path, database_url: str, config: str = FILE) -> Platform:
    file = home / "models.toml"
    file.write_text(config)
    variables = {
        "HOME": str(home),
        "DATABASE_URL": database_url,
        "CONFIG": str(file),
        "LEDGER_SWEEP_INTERVAL_S": "0.05",
    }
    return Platform(
        ["tenants", "ledger"], Environment({f"MODELPLANE_{name}": value for name, value in variables.items()})
    )


async def in_force(ledger: LedgerService) -> dict[str, tuple[str, dict[str, object]]]:
    found = await ledger.list_prices(ListPricesRequest())
    return {price.model: (price.source, json.loads(price.rates_json)) for price in found.prices}


async def test_the_shipped_prices_and_those_of_the_file_are_in_force_at_once_and_stay(
    tmp_path: Path, database_url: str
) -> None:
    for _ in range(2):
        async with platform(tmp_path, database_url) as started:
            ledger = started.local(LedgerService)
            found = await in_force(ledger)
            assert found.keys() == {*defaults.load(), "dear", "open"}
            assert found["dear"] == ("file", {"input": "0.15", "output": "0.6"})
            assert found["open"] == ("file", {"free": True})
            history = await ledger.list_prices(ListPricesRequest(history=True))
            assert len(history.prices) == len(found)


async def test_a_broken_price_ends_the_start_and_is_named(tmp_path: Path, database_url: str) -> None:
    broken = FILE.replace("output = 0.6", "ouput = 0.6")
    with pytest.raises(SettingsError, match=r"model 'dear': price: .*ouput"):
        async with platform(tmp_path, database_url, broken):
            pass


async def test_credits_expire_while_it_runs(tmp_path: Path, database_url: str, service: Ledger, clock: Clock) -> None:
    async with platform(tmp_path, database_url) as started:
        made = await started.local(TenantsService).create_organization(CreateOrganizationRequest(name="Mine"))
        of = made.organization.id
        # By a clock that is late, so that nobody has to wait.
        clock.now_s -= 7200
        await grant(service, of, "old", 1, int(clock.now_s) + 60)
        ledger = started.local(LedgerService)
        async with asyncio.timeout(30):
            while "expiry" not in {row[1] for row in await postings(service, of)}:
                await asyncio.sleep(0.02)
        kept = GrantCreditsRequest(organization_id=of, grant_id="kept", nanodollars=1)
        await ledger.grant_credits(kept)
        found = await ledger.list_postings(ListPostingsRequest(organization_id=of, limit=10))
        assert len(found.postings) == 3


async def test_a_sweep_goes_on_when_one_has_failed(
    database: Database, tenants: Tenants, service: Ledger, clock: Clock, mine: str
) -> None:
    clock.now_s -= 7200
    await grant(service, mine, "old", 1, int(clock.now_s) + 60)
    await rename(database, "credits", "lost")
    swept = Ledger(database, tenants, LedgerSettings(sweep_interval_s=0.01), clock=clock)
    sweeping = asyncio.create_task(swept.keep_sweeping())
    await asyncio.sleep(0.05)
    await rename(database, "lost", "credits")
    async with asyncio.timeout(30):
        while "expiry" not in {row[1] for row in await postings(service, mine)}:
            await asyncio.sleep(0.02)
    sweeping.cancel()
    await asyncio.wait([sweeping])


async def rename(database: Database, table: str, name: str) -> None:
    async with database.connection() as connection:
        await connection.execute(f"ALTER TABLE {table} RENAME TO {name}".encode())
