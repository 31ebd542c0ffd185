"""The schema is brought up to date once, however many start together, and a newer one is left alone."""

import asyncio

import psycopg
import pytest

from services.storage import StartError
from services.storage.migrate import upgrade


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return {name for (name,) in rows}


def test_from_empty_and_again(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    assert {"organizations", "projects", "api_keys", "alembic_version"} <= tables(empty_database_url)
    upgrade(empty_database_url)


async def test_many_at_once(empty_database_url: str) -> None:
    await asyncio.gather(*(asyncio.to_thread(upgrade, empty_database_url) for _ in range(4)))
    assert "api_keys" in tables(empty_database_url)


def test_newer_schema_is_refused_and_untouched(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = tables(database_url)
    with pytest.raises(StartError, match=r"9999.*newer"):
        upgrade(database_url)
    assert tables(database_url) == before


def test_unreachable_database_says_so() -> None:
    with pytest.raises(StartError, match="could not be migrated"):
        upgrade("postgresql://nobody@/none?host=/nonexistent")


def test_organizations_from_before_there_were_tiers_keep_generous_limits(empty_database_url: str) -> None:
    upgrade(empty_database_url, "0003")
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO organizations (id, name) VALUES ('org-1', 'Old')")
        upgrade(empty_database_url)
        connection.execute("INSERT INTO organizations (id, name) VALUES ('org-2', 'New')")
        tiers = connection.execute("SELECT id, usage_tier, tier_pinned FROM organizations ORDER BY id").fetchall()
    assert tiers == [("org-1", 5, True), ("org-2", 0, False)]
