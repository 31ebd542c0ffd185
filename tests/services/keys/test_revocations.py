"""Revocations that the database does not take at once: none is lost, whatever kept it from being written down."""

import asyncio
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from modelplane.auth.v1 import auth_pb2
from modelplane.keys.v1 import keys_pb2 as pb
from services.key_format import KeySettings
from services.keys.journal import Journal, Revocation
from services.keys.service import serving
from services.keys.settings import KeysSettings
from services.keys.store import KeysStore
from services.storage import Database
from tests.contract.tenancy import write

SETTINGS = KeysSettings(retry_s=0.01)


@pytest.fixture
async def key_id(database: Database, tmp_path: Path) -> str:
    await write(database)
    async with serving(KeysStore(database), Journal(tmp_path / "none"), KeySettings(), SETTINGS) as keys:
        request = pb.CreateKeyRequest(
            organization_id="org-1", project_id="proj_1", kind=auth_pb2.KEY_KIND_PROJECT, name="k"
        )
        return (await keys.create_key(request)).key.id


async def is_revoked(database: Database) -> bool:
    async with database.connection() as connection:
        row = await (await connection.execute("SELECT revoked_at IS NOT NULL FROM api_keys")).fetchone()
    return row is not None and bool(row[0])


async def test_a_database_that_only_reads_is_one_that_is_away(database: Database, key_id: str, tmp_path: Path) -> None:
    """As after a failover, until the clients find the new primary."""
    journal = Journal(tmp_path / "revocations.jsonl")
    standby = Database(make_conninfo(database.url, options="-c default_transaction_read_only=on"))
    await standby.open()
    async with serving(KeysStore(standby), journal, KeySettings(), SETTINGS) as keys:
        await keys.revoke_key(pb.RevokeKeyRequest(organization_id="org-1", key_id=key_id))
        assert [revocation.key_id for revocation in journal.revocations.values()] == [key_id]
    await standby.close()


async def test_whatever_goes_wrong_it_is_tried_again(database: Database, key_id: str, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "revocations.jsonl")
    journal.add(Revocation("org-1", key_id, b""))
    await write(database, "ALTER TABLE audit_events RENAME TO gone")
    async with serving(KeysStore(database), journal, KeySettings(), SETTINGS):
        await asyncio.sleep(0.1)
        assert not await is_revoked(database)
        await write(database, "ALTER TABLE gone RENAME TO audit_events")
        async with asyncio.timeout(30):
            while not await is_revoked(database):
                await asyncio.sleep(0.01)
