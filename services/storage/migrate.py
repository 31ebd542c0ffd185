"""Brings a database's schema to the newest revision this program knows.

Keeps true: one migrates while the others wait (an advisory lock), all revisions are applied in one
transaction or none is, and a schema made by a newer program is refused and left alone.
"""

from pathlib import Path

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


def upgrade(url: str, revision: str = "head") -> None:
    """Blocks until the schema is current, or at an older `revision` for tests of what comes after it. Raises
    StartError."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    # The creator hands the url to libpq unread, so that every form it understands works.
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=NullPool)
    try:
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '60s'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            refuse_newer(connection, script)
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    except (DBAPIError, psycopg.OperationalError) as error:
        raise StartError(f"The database could not be migrated: {error}") from error


def refuse_newer(connection: Connection, script: ScriptDirectory) -> None:
    for revision in MigrationContext.configure(connection).get_current_heads():
        try:
            script.get_revision(revision)
        except CommandError as error:
            raise StartError(
                f"The database's schema is at revision {revision}, which this Modelplane (up to "
                f"{script.get_current_head()}) does not know: a newer one has used it. "
                "Run that version, or give this one another database."
            ) from error
