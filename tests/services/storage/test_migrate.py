"""The schema is brought up to date once, however many start together, and a newer one is left alone."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from services.command import main
from services.settings import PlatformSettings
from services.storage import Database, StartError, open_database
from services.storage.migrate import MIGRATIONS, OutOfDate, check, upgrade
from tests.audited import assert_clean


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


NEWER = """
from alembic import op

revision = "9001"
down_revision = "{head}"
{said}

def upgrade():
    op.execute("CREATE TABLE of_a_newer_program ()")
"""


@pytest.fixture
def newer(tmp_path: Path) -> Callable[[str], Path]:
    """The migrations of a newer program, whose last revision says so much of older ones."""

    def made(said: str) -> Path:
        folder = tmp_path / "migrations"
        shutil.copytree(MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
        head = max(path.stem.split("_")[0] for path in (folder / "versions").glob("*.py"))
        (folder / "versions" / "9001_newer.py").write_text(NEWER.format(head=head, said=said))
        return folder

    return made


def head() -> str:
    return max(path.stem.split("_")[0] for path in (MIGRATIONS / "versions").glob("*.py"))


def test_an_older_program_goes_on_where_the_newer_one_allows_it(
    database_url: str, newer: Callable[[str], Path]
) -> None:
    folder = newer(f'oldest_program = "{head()}"')
    assert upgrade(database_url, migrations=folder) == (head(), "9001")
    assert upgrade(database_url) == ("9001", "9001")
    check(database_url)
    check(database_url, migrations=folder)
    assert "of_a_newer_program" in tables(database_url)
    assert upgrade(database_url, migrations=folder) == ("9001", "9001")


@pytest.mark.parametrize("said", ["", 'oldest_program = "9001"', 'oldest_program = "9000"'])
def test_an_older_program_is_refused_where_it_does_not(
    database_url: str, newer: Callable[[str], Path], said: str
) -> None:
    upgrade(database_url, migrations=newer(said))
    for refused in (upgrade, check):
        with pytest.raises(StartError, match=r"9001.*newer"):
            refused(database_url)


def test_what_one_revision_forbids_no_later_one_allows(database_url: str, newer: Callable[[str], Path]) -> None:
    folder = newer("")
    later = NEWER.replace("9001", "9002").replace("of_a_newer", "of_a_still_newer")
    later = later.format(head="9001", said=f'oldest_program = "{head()}"')
    (folder / "versions" / "9002_newest.py").write_text(later)
    upgrade(database_url, migrations=folder)
    with pytest.raises(StartError, match="9002"):
        upgrade(database_url)


def test_migrations_that_exist_say_what_they_are(empty_database_url: str) -> None:
    with pytest.raises(OutOfDate, match="none"):
        check(empty_database_url)
    assert upgrade(empty_database_url, "0004") == ("", "0004")
    with pytest.raises(OutOfDate, match="0004"):
        check(empty_database_url)
    assert upgrade(empty_database_url) == ("0004", head())
    check(empty_database_url)


async def test_services_that_do_not_migrate_wait_for_who_does(
    empty_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = PlatformSettings(database_url=empty_database_url, database_migrate=False, database_wait_s=30)

    async def opened() -> None:
        async with open_database(settings) as database:
            await database.ping()

    waiting = asyncio.create_task(opened())
    await asyncio.sleep(1.5)
    assert not waiting.done() and "organizations" not in tables(empty_database_url)
    await asyncio.to_thread(upgrade, empty_database_url)
    await asyncio.wait_for(waiting, 30)
    assert caplog.text.count("waiting for the database's schema") == 1


async def test_they_do_not_wait_for_ever_and_not_for_what_is_newer(
    empty_database_url: str, newer: Callable[[str], Path]
) -> None:
    waited = PlatformSettings(database_url=empty_database_url, database_migrate=False, database_wait_s=0.1)
    with pytest.raises(StartError, match="modelplane migrate"):
        async with open_database(waited):
            pass
    await asyncio.to_thread(upgrade, empty_database_url, migrations=newer(""))
    refused = PlatformSettings(database_url=empty_database_url, database_migrate=False)
    with pytest.raises(StartError, match="newer"):
        async with open_database(refused):
            pass


def test_the_command(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MODELPLANE_DATABASE_URL", raising=False)
    assert main(["migrate"]) == 2
    assert "MODELPLANE_DATABASE_URL" in capsys.readouterr().err
    monkeypatch.setenv("MODELPLANE_DATABASE_URL", empty_database_url)
    assert main(["migrate"]) == 0
    assert capsys.readouterr().out == f"The schema went from nothing to {head()}.\n"
    assert main(["migrate"]) == 0
    assert capsys.readouterr().out == f"The schema is at {head()} already.\n"
    monkeypatch.setenv("MODELPLANE_DATABASE_URL", "postgresql://nobody@/none?host=/nonexistent")
    assert main(["migrate"]) == 2


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


async def test_usage_from_before_there_were_prices_is_kept_and_was_free(empty_database_url: str) -> None:
    await asyncio.to_thread(upgrade, empty_database_url, "0004")
    columns = (
        "request_id, organization_id, project_id, key_id, user_id, model, service_tier, operation, outcome, "
        "input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, started_at_ms, finished_at_ms"
    )
    hour_ms = 3_600_000
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        for number, at_ms in enumerate((hour_ms, hour_ms + 1, 2 * hour_ms)):
            connection.execute(
                f"INSERT INTO usage_records ({columns}) VALUES (%s, 'o', 'p', 'k', '', 'm', 'default', "
                "'chat.completions', 1, 10, 4, 20, 0, %s, %s)",
                (f"req_{number}", at_ms, at_ms),
            )
        await asyncio.to_thread(upgrade, empty_database_url)
        kept = connection.execute(
            "SELECT request_id, input_tokens, price_id, nanodollars, transaction_xid::text FROM usage_records "
            "ORDER BY request_id"
        ).fetchall()
        hours = connection.execute(
            "SELECT extract(epoch FROM hour)::int, requests, input_tokens, cached_input_tokens, output_tokens "
            "FROM usage_hours ORDER BY 1"
        ).fetchall()
    assert kept == [(f"req_{number}", 10, 0, 0, "0") for number in range(3)]
    assert hours == [(3600, 2, 20, 8, 40), (7200, 1, 10, 4, 20)]
    await assert_clean(empty_database_url)


async def test_what_was_paid_before_there_was_a_ledger_is_credits(empty_database_url: str) -> None:
    await asyncio.to_thread(upgrade, empty_database_url, "0004")
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        for organization_id, payments in {"org-1": {"a": 5, "b": 7, "c": -9}, "org-2": {"a": 3}}.items():
            connection.execute("INSERT INTO organizations (id, name) VALUES (%s, 'Old')", (organization_id,))
            for payment_id, amount in payments.items():
                connection.execute(
                    "INSERT INTO payments (organization_id, id, amount_nanodollars, received_at) "
                    "VALUES (%s, %s, %s, timestamptz '2026-01-01' + %s * interval '1 hour')",
                    (organization_id, payment_id, amount, len(payment_id)),
                )
        await asyncio.to_thread(upgrade, empty_database_url)
        left = connection.execute("SELECT id, nanodollars, remaining FROM credits ORDER BY id").fetchall()
        balances = connection.execute("SELECT * FROM balances ORDER BY 1, 2").fetchall()
    assert left == [("a@org-1", 5, 3), ("a@org-2", 3, 3), ("b@org-1", 7, 0)]
    assert balances == [("org-1", "cash", 3), ("org-1", "credits", -3), ("org-2", "cash", 3), ("org-2", "credits", -3)]
    await assert_clean(empty_database_url)


@pytest.mark.parametrize("table", ["postings", "prices"])
def test_what_was_booked_cannot_be_changed(database_url: str, table: str) -> None:
    with psycopg.connect(database_url) as connection, pytest.raises(psycopg.IntegrityError, match="append only"):
        connection.execute(f"DELETE FROM {table}".encode())


async def test_of_what_is_deleted_the_place_is_kept_for_a_day(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("INSERT INTO organizations (id, name) VALUES ('org-1', '')")
        await connection.execute(
            "INSERT INTO invites (id, organization_id, email, role, projects, created_at, expires_at) "
            "SELECT 'invite-' || n, 'org-1', '', 'reader', '[]', to_timestamp(n + 0.123456), now() "
            "FROM generate_series(0, 24) AS n"
        )
        await connection.execute("DELETE FROM invites WHERE id <> 'invite-0'")
        await connection.execute("UPDATE departed SET departed_at = now() - interval '25 hours' WHERE id <> 'invite-7'")
        await connection.execute("DELETE FROM invites")
        left = await (await connection.execute("SELECT id FROM departed")).fetchall()
        assert len(left) == 15 and {("invite-0",), ("invite-7",)} <= set(left)
        found = await connection.execute(
            "SELECT list, organization_id, project_id, extract(epoch FROM at)::float8 FROM departed "
            "WHERE id = 'invite-7'"
        )
        assert await found.fetchone() == ("invites", "org-1", "", 7.123456)
