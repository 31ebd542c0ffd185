"""Restores a backup into an empty database and a home without state of its own.

Kept true: everything that can be refused is refused before anything is changed; the database has all of the dump or
nothing; and usage that was on its way is in the home before it is in the database, so that nothing which ends a restore
half way loses it in silence.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

from services.backup import manifest, postgres, statements, usage
from services.backup.manifest import Manifest, RefusedError
from services.backup.private import CREDENTIALS, FILE, Secrets
from services.billing.settings import BillingSettings
from services.faults import Unavailable
from services.home import Home, write_private
from services.progress import Progress
from services.settings import Environment, PlatformSettings
from services.storage import Database
from services.storage.migrate import knows, upgrade
from services.storage.open import reached


class Restored(NamedTuple):
    """What came back. `waiting` files of usage the ledger has not taken: the next start on this home brings them in.
    `config` is the catalogue's folder, when there was one and none is configured."""

    manifest: Manifest
    waiting: int
    config: Path | None


async def restore(folder: Path, environment: Environment, progress: Progress, *, new_pepper: bool) -> Restored:
    """Raises DamagedError, RefusedError; StartError, FailedError, OSError. Fault: database_unavailable."""
    progress.step("checking the backup")
    found = await checked(folder)
    settings = environment.group(PlatformSettings)
    files = _files(folder, found, settings)
    files |= _secrets(folder, found, Secrets.of(environment), new_pepper=new_pepper)
    Home(settings.home).create()
    progress.step("looking at the database")
    async with reached(settings) as url, _opened(url) as database:
        target = await statements.target(database)
        _require_fitting(target, found)
        with _written(files):
            await postgres.load(url, target.postgresql, folder / manifest.DATABASE, found.ledger, progress.step)
        progress.step("bringing the schema up to date")
        await asyncio.to_thread(upgrade, url)
        await statements.analyze(database)
        progress.step("bringing usage into the ledger")
        waiting = await _bring_in(settings.home / manifest.SPOOL, database, environment)
    config = settings.home / manifest.CONFIG
    return Restored(found, waiting, config if any(path.is_relative_to(config) for path in files) else None)


async def checked(folder: Path) -> Manifest:
    """What a whole backup says of itself, that this program can restore. Raises DamagedError, RefusedError."""
    found = manifest.read(folder)
    if not knows(found.revision):
        raise RefusedError(
            f"The backup's schema is at revision {found.revision}, which this program does not know: it was made by a "
            f"newer one ({found.program}). Restore with that version."
        )
    await asyncio.to_thread(manifest.check, folder, found)
    return found


def _files(folder: Path, found: Manifest, settings: PlatformSettings) -> dict[Path, Path]:
    """What goes into the home, and where it lies in the backup. Raises RefusedError."""
    is_configured = settings.config is not None and settings.config.exists()
    places = {manifest.HOME: settings.home, manifest.SPOOL: settings.home / manifest.SPOOL}
    if not is_configured:
        places[manifest.CONFIG] = settings.home / manifest.CONFIG
    files = {}
    for part in found.parts:
        top, _, rest = part.path.partition("/")
        if top in places and rest not in (FILE, CREDENTIALS):
            files[places[top] / rest] = folder / part.path
    there = [path for path in files if path.exists()]
    if there or usage.waiting(settings.home / manifest.SPOOL):
        what = there[0] if there else settings.home / manifest.SPOOL
        raise RefusedError(f"{settings.home} has state of its own: {what}. Restore into a new MODELPLANE_HOME.")
    return files


def _secrets(folder: Path, found: Manifest, own: Secrets, *, new_pepper: bool) -> dict[Path, Path]:
    """The same of secrets. Raises RefusedError when no key would work."""
    kept = folder / manifest.HOME
    files = {}
    if not (own.home / CREDENTIALS).exists() and (kept / CREDENTIALS).exists():
        files[own.home / CREDENTIALS] = kept / CREDENTIALS
    if manifest.fingerprint(own.pepper_key, found.pepper_salt) == found.pepper_fingerprint or new_pepper:
        return files
    if found.with_secrets and not own.has_pepper:
        return {**files, own.home / FILE: kept / FILE}
    raise RefusedError(
        "The backup was made with another pepper, and without the same one no key in it works. Set "
        f"MODELPLANE_AUTH_PEPPER, or put the old {FILE} into {own.home}. To restore all the same, and make new keys, "
        "say --new-pepper."
    )


def _require_fitting(target: statements.Target, found: Manifest) -> None:
    """Raises RefusedError."""
    if not target.is_empty:
        raise RefusedError("The database is not empty. Restore into a new one.")
    oldest = max(found.postgresql, postgres.OLDEST_TARGET)
    if target.postgresql < oldest:
        raise RefusedError(f"The database is PostgreSQL {target.postgresql}; the backup needs {oldest} or newer.")


@contextmanager
def _written(files: Mapping[Path, Path]) -> Iterator[None]:
    """Files that go again when the block fails. Raises OSError."""
    try:
        for path, source in files.items():
            write_private(path, source.read_bytes())
        yield
    except BaseException:
        for path in files:
            path.unlink(missing_ok=True)
        raise


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def _bring_in(folder: Path, database: Database, environment: Environment) -> int:
    try:
        return await usage.bring_in(folder, database, environment.group(BillingSettings))
    except Unavailable:
        return usage.waiting(folder)
