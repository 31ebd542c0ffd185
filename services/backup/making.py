"""Makes a backup while the platform runs.

Kept true: a backup has its name when it is whole, so that what a crash leaves is never taken for one; what was
acknowledged before it began is in it; secrets are in it only when they are asked for.
"""

import asyncio
import re
import shutil
import tarfile
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from services import catalog
from services.backup import manifest, postgres, statements, usage
from services.backup.manifest import Manifest
from services.backup.private import Secrets
from services.home import write_private
from services.progress import Progress
from services.settings import Environment, PlatformSettings
from services.storage import Database, StartError
from services.storage.migrate import OutOfDate, check
from services.storage.open import reached

# Of the home, besides the spool: revocations that the database does not have yet, and what rate limits are used up.
KEPT: Final = ("revocations.jsonl", "ratelimit.snapshot")
PARTIAL: Final = ".partial"
ABANDONED_S: Final = 86_400
_NAME: Final = re.compile(r"modelplane-\d{8}T\d{6}Z")


class Made(NamedTuple):
    """A whole backup."""

    path: Path
    manifest: Manifest


async def into_folder(folder: Path, environment: Environment, progress: Progress, *, with_secrets: bool) -> Made:
    """A new backup in the folder, named by its time. Raises StartError, FailedError, OSError. Fault:
    database_unavailable."""
    _prepare(folder)
    path = folder / datetime.now(UTC).strftime("modelplane-%Y%m%dT%H%M%SZ")
    partial = path.with_name(path.name + PARTIAL)
    partial.mkdir(mode=0o700)
    try:
        written = await _make(partial, environment, progress, with_secrets=with_secrets)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    manifest.sync(folder)
    return Made(path, written)


async def to_stream(stream: BinaryIO, environment: Environment, progress: Progress, *, with_secrets: bool) -> None:
    """As a tar archive of one folder, which is made on the disk first. Raises the same."""
    with tempfile.TemporaryDirectory(prefix="modelplane-backup-") as place:
        path, _ = await into_folder(Path(place), environment, progress, with_secrets=with_secrets)
        progress.step("sending")
        with tarfile.open(fileobj=stream, mode="w|") as archive:
            archive.add(path, path.name)


def keep_newest(folder: Path, most: int) -> list[Path]:
    """Removes the oldest whole backups of a folder; returns which. Raises OSError."""
    whole = sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name) and (path / manifest.NAME).exists())
    removed = whole[:-most]
    for path in removed:
        # Without its manifest it is none, should this end half way.
        (path / manifest.NAME).unlink()
        shutil.rmtree(path)
    return removed


async def _make(folder: Path, environment: Environment, progress: Progress, *, with_secrets: bool) -> Manifest:
    settings = environment.group(PlatformSettings)
    secrets = Secrets.of(environment)
    if settings.database_url is None and not (settings.home / "postgres").exists():
        raise StartError(f"No platform has run on {settings.home}. Set MODELPLANE_HOME, or MODELPLANE_DATABASE_URL.")
    began_at = _now()
    progress.step("copying usage on its way to the ledger, and the small files")
    spooled = usage.copy(settings.home / manifest.SPOOL, folder / manifest.SPOOL)
    _copy_files(settings, folder)
    if with_secrets:
        secrets.copy(folder / manifest.HOME)
    async with reached(settings) as url:
        await _require_current(url)
        database = Database(url, max_connections=1)
        await database.open()
        try:
            progress.step("counting the ledger")
            async with statements.snapshot(database) as seen:
                progress.step("dumping the database")
                await postgres.dump(url, seen.postgresql, seen.id, folder / manifest.DATABASE)
        finally:
            await database.close()
    progress.step("forcing it to the disk")
    salt = manifest.new_salt()
    written = Manifest(
        program=version("modelplane"),
        revision=seen.revision,
        postgresql=seen.postgresql,
        began_at=began_at,
        ended_at=_now(),
        ledger=seen.ledger,
        spooled_records=spooled,
        with_secrets=with_secrets,
        pepper_salt=salt,
        pepper_fingerprint=manifest.fingerprint(secrets.pepper_key, salt),
        parts=manifest.describe(folder),
    )
    manifest.write(folder, written)
    return written


async def _require_current(url: str) -> None:
    """A dump is for the program of its schema. Raises StartError."""
    try:
        await asyncio.to_thread(check, url)
    except OutOfDate as error:
        raise StartError(f"{error} Only what this version of the program works with can be backed up by it.") from None


def _copy_files(settings: PlatformSettings, folder: Path) -> None:
    for name in KEPT:
        if (path := settings.home / name).exists():
            write_private(folder / manifest.HOME / name, path.read_bytes())
    if settings.config is not None:
        for path, content in catalog.read(settings.config).items():
            write_private(folder / manifest.CONFIG / path.name, content)


def _prepare(folder: Path) -> None:
    """Makes the folder, without what backups that were killed have left."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in folder.glob(f"modelplane-*{PARTIAL}"):
        if time.time() - path.stat().st_mtime > ABANDONED_S:
            shutil.rmtree(path, ignore_errors=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
