"""What a backup says of itself, and whether what lies there is what was written.

Kept true: a folder with a manifest is a whole backup, since it is written last and the folder gets its name after it;
and no part is used before every part was read through and compared.
"""

import hashlib
import os
import secrets
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec

NAME: Final = "manifest.json"
DATABASE: Final = "database.dump"
SPOOL: Final = "spool"
HOME: Final = "home"
CONFIG: Final = "config"
FORMAT: Final = 1
CHUNK_BYTES: Final = 1024 * 1024


class DamagedError(Exception):
    """A backup that must not be used, and why."""


class RefusedError(Exception):
    """A restore that changed nothing, and why."""


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger held in the dump's snapshot. `nanodollars` is what all its usage cost."""

    usage_records: int
    postings: int
    nanodollars: int


class Part(msgspec.Struct, frozen=True):
    """A file of the backup; `path` is below its folder."""

    path: str
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Times are in UTC (ISO 8601). Everything that was acknowledged before `began_at` is in the backup."""

    format: int = FORMAT
    program: str
    revision: str
    """Of the database's schema."""
    postgresql: int
    """The server's major version."""
    began_at: str
    ended_at: str
    ledger: Ledger
    spooled_records: int
    """Usage that the database may not have had yet: records, and what running requests had used."""
    with_secrets: bool
    pepper_salt: str
    pepper_fingerprint: str
    parts: tuple[Part, ...]


def fingerprint(pepper_key: bytes, salt: str) -> str:
    """Tells whether a pepper is the same, and nothing else of it. `pepper_key` is KeySettings.hash_key."""
    return blake2b(salt.encode(), digest_size=16, key=pepper_key, person=b"modelplane").hexdigest()


def new_salt() -> str:
    return secrets.token_hex(16)


def describe(folder: Path) -> tuple[Part, ...]:
    """Every file in the folder, forced to the disk."""
    parts = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest, size = _digest(path)
        parts.append(Part(path.relative_to(folder).as_posix(), size, digest))
        sync(path)
    for path in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        sync(path)
    return tuple(parts)


def write(folder: Path, manifest: Manifest) -> None:
    """The last file of a backup."""
    path = folder / NAME
    path.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    sync(path)
    sync(folder)


def read(folder: Path) -> Manifest:
    """Raises DamagedError."""
    try:
        manifest = msgspec.json.decode((folder / NAME).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise DamagedError(f"{folder} is no backup: it has no {NAME}") from None
    except msgspec.DecodeError as error:
        raise DamagedError(f"{folder / NAME} is damaged: {error}") from error
    if manifest.format != FORMAT:
        raise DamagedError(f"{folder} has the format {manifest.format}; this program reads {FORMAT}")
    return manifest


def check(folder: Path, manifest: Manifest) -> None:
    """Reads every part through. Raises DamagedError."""
    for part in manifest.parts:
        path = folder / part.path
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            raise DamagedError(f"{path} is missing")
        if _digest(path) != (part.sha256, part.bytes):
            raise DamagedError(f"{path} is damaged: it is not what was written")


def _digest(path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def sync(path: Path) -> None:
    """Forces a file, or the names in a folder, to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
