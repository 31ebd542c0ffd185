"""Brings a database's schema to the newest revision this program knows.

Keeps true: one migrates while the others wait (an advisory lock), all revisions are applied in one
transaction or none is, and a schema made by a newer program is left alone.

Whether an older program may use a newer schema is for the newer one to say, since only it knows what it changed. A
revision whose module has `oldest_program = "0006"` works with programs from 0006 on; one without works with none that
does not know it. What follows for the schema as a whole is kept in it, in `schema_compatibility`, so that a release
can be rolled back: the older program finds there whether it still fits.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from services.storage.errors import StartError

LOCK = 0x6D6F64656C  # "model"; any number that everyone who migrates agrees on
MIGRATIONS: Final = Path(__file__).parent / "migrations"


class OutOfDate(Exception):
    """The schema is not there yet, or cannot be seen: waiting may help."""


class Upgraded(NamedTuple):
    """Revisions before and after; "" for an empty database."""

    before: str
    after: str


def upgrade(url: str, revision: str = "head", *, migrations: Path = MIGRATIONS) -> Upgraded:
    """Blocks until the schema is current, or at an older `revision` for tests of what comes after it. A newer schema
    that this program can use is left as it is. Raises StartError."""
    config = _config(migrations)
    script = ScriptDirectory.from_config(config)
    try:
        with _connected(url) as connection:
            connection.execute(text("SET LOCAL lock_timeout = '60s'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            before = current(connection)
            if newer(connection, script, before):
                return Upgraded(before, before)
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            after = current(connection)
            declare(connection, after, oldest_program(script, after))
            return Upgraded(before, after)
    except (DBAPIError, psycopg.OperationalError) as error:
        raise StartError(f"The database could not be migrated: {error}") from error


def check(url: str, *, migrations: Path = MIGRATIONS) -> None:
    """Returns when the schema is one for this program. Raises OutOfDate when it may still become one, StartError when
    a newer program has made it and this one does not fit."""
    script = ScriptDirectory.from_config(_config(migrations))
    head = script.get_current_head()
    try:
        with _connected(url) as connection:
            found = current(connection)
            if found != head and not newer(connection, script, found):
                raise OutOfDate(f"The database's schema is at revision {found or 'none'}, and {head} is needed.")
    except (DBAPIError, psycopg.OperationalError) as error:
        raise OutOfDate(f"The database cannot be asked: {error}") from error


def knows(revision: str, *, migrations: Path = MIGRATIONS) -> bool:
    """Whether a schema of this revision can be brought up to date by this program."""
    return bool(revision) and _knows(ScriptDirectory.from_config(_config(migrations)), revision)


def current(connection: Connection) -> str:
    """The schema's revision, "" when there is none."""
    return MigrationContext.configure(connection).get_current_revision() or ""


def newer(connection: Connection, script: ScriptDirectory, revision: str) -> bool:
    """Whether a newer program has made the schema. Raises StartError when this one must not use it."""
    if _knows(script, revision):
        return False
    oldest = declared(connection, revision)
    if oldest and _knows(script, oldest):
        return True
    raise StartError(
        f"The database's schema is at revision {revision}, which this Modelplane (up to "
        f"{script.get_current_head()}) does not know: a newer one has used it. "
        "Run that version, or give this one another database."
    )


def oldest_program(script: ScriptDirectory, revision: str) -> str:
    """The revision whose program, and every later one, can use a schema at `revision`."""
    oldest = ""
    for step in reversed(list(script.iterate_revisions(revision, "base"))):
        mine = getattr(step.module, "oldest_program", step.revision)
        # Revisions are numbered, so the later of two is the greater.
        oldest = max(oldest, mine)
    return oldest


def declare(connection: Connection, revision: str, oldest: str) -> None:
    """Written beside Alembic's own table, and like it no part of any revision."""
    columns = "revision text PRIMARY KEY, oldest_program text NOT NULL"
    connection.execute(text(f"CREATE TABLE IF NOT EXISTS schema_compatibility ({columns})"))
    connection.execute(text("DELETE FROM schema_compatibility WHERE revision <> :revision"), {"revision": revision})
    statement = "INSERT INTO schema_compatibility VALUES (:revision, :oldest) ON CONFLICT DO NOTHING"
    connection.execute(text(statement), {"revision": revision, "oldest": oldest})


def declared(connection: Connection, revision: str) -> str:
    """What the program that made the revision has said, "" when it has not."""
    if connection.execute(text("SELECT to_regclass('schema_compatibility')")).scalar() is None:
        return ""
    statement = "SELECT oldest_program FROM schema_compatibility WHERE revision = :revision"
    return connection.execute(text(statement), {"revision": revision}).scalar() or ""


def _knows(script: ScriptDirectory, revision: str) -> bool:
    try:
        return not revision or script.get_revision(revision) is not None
    except CommandError:
        return False


def _config(migrations: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    return config


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    """One transaction."""
    # The creator hands the url to libpq unread, so that every form it understands works.
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=NullPool)
    with engine.begin() as connection:
        yield connection
