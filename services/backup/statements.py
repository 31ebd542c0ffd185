"""What a backup asks the database, and what a restore tells it beside the dump.

Transaction ids are a server's own. Those that the ledger keeps would be wrong in another server: reports would count
old records again when a new transaction has the number of an old one, and readers of new usage would wait for numbers
that come in years, or pass new usage over. So they are replaced by numbers that no transaction ever gets, and that
keep every reader where it was.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, LiteralString, NamedTuple

from services.backup.manifest import Ledger
from services.storage import Database
from services.storage.migrate import LOCK

_BEGIN = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_PATIENT = "SET LOCAL idle_in_transaction_session_timeout = 0"
_SNAPSHOT = """
SELECT pg_export_snapshot(), current_setting('server_version_num')::int / 10000,
    (SELECT version_num FROM alembic_version),
    (SELECT count(*) FROM usage_records), (SELECT count(*) FROM postings),
    (SELECT coalesce(sum(nanodollars), 0)::bigint FROM usage_records)
"""
_OURS: LiteralString = """
    SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
        AND NOT EXISTS (
            SELECT FROM pg_depend
            WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e'
        )
"""
_TARGET: LiteralString = f"SELECT current_setting('server_version_num')::int / 10000, NOT EXISTS ({_OURS})"

# Nobody migrates meanwhile, and nobody has since it was looked at.
GUARD: Final = f"""
SELECT pg_advisory_xact_lock({LOCK});
DO $$ BEGIN
    IF EXISTS ({_OURS}) THEN
        RAISE 'the database is not empty';
    END IF;
END $$;
"""
# Before there are indexes, the table is written anew. 1 is the number of the server's own beginning; records get one
# more for each reader that has passed them by.
SETTLE: Final = """
RESET search_path;
CREATE TEMPORARY TABLE readers ON COMMIT DROP AS
    SELECT *, row_number() OVER (ORDER BY transaction_xid, seq) AS turn FROM cursors;
DO $$ BEGIN EXECUTE (
    SELECT format('ALTER TABLE usage_records ALTER transaction_xid TYPE xid8 USING (CASE %s ELSE %L::xid8 END)',
        coalesce(string_agg(
            format('WHEN (transaction_xid, seq) <= (%L::xid8, %s) THEN %L::xid8', transaction_xid, seq, turn),
            ' ' ORDER BY turn
        ), 'WHEN false THEN NULL'), count(*) + 1)
    FROM readers
); END $$;
UPDATE cursors SET transaction_xid = turn::text::xid8, seq = 9223372036854775807
FROM readers WHERE readers.name = cursors.name;
"""
_VERIFY = """
RESET search_path;
DO $$ BEGIN
    IF (SELECT count(*) FROM usage_records) <> {ledger.usage_records}
        OR (SELECT count(*) FROM postings) <> {ledger.postings}
        OR (SELECT coalesce(sum(nanodollars), 0) FROM usage_records) <> {ledger.nanodollars}
    THEN
        RAISE 'the ledger has not what the manifest says';
    END IF;
END $$;
"""


class Snapshot(NamedTuple):
    """One moment of the database, which others can read too as long as this is held."""

    id: str
    postgresql: int
    revision: str
    ledger: Ledger


class Target(NamedTuple):
    """Where a backup is to go."""

    postgresql: int
    is_empty: bool


@asynccontextmanager
async def snapshot(database: Database) -> AsyncIterator[Snapshot]:
    """Fault: database_unavailable."""
    async with database.connection(statement_timeout_s=0) as connection:
        await connection.execute(_BEGIN)
        await connection.execute(_PATIENT)
        row = await (await connection.execute(_SNAPSHOT)).fetchone()
        assert row
        yield Snapshot(row[0], row[1], row[2], Ledger(usage_records=row[3], postings=row[4], nanodollars=row[5]))


async def target(database: Database) -> Target:
    """Tables of extensions do not count. Fault: database_unavailable."""
    async with database.connection() as connection:
        row = await (await connection.execute(_TARGET)).fetchone()
        assert row
        return Target(*row)


async def analyze(database: Database) -> None:
    """So that queries are planned for what is there. Fault: database_unavailable."""
    async with database.connection(statement_timeout_s=0) as connection:
        await connection.execute("ANALYZE")


def verification(ledger: Ledger) -> str:
    """Fails unless the ledger is as it was."""
    return _VERIFY.format(ledger=ledger)
