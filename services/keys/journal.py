"""Revocations that the database has not taken yet, in a file, so that they outlive this process too.

A line per revocation, written and forced to the disk before the revocation is said to have happened. It begins with
the end of the line before it, so that one that was torn does not spoil the next. The file is replaced when the database
has taken some of them, and gone when there are none.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec


class Revocation(msgspec.Struct, frozen=True):
    """Whose key is revoked, and what the audit log will say of it."""

    organization_id: str
    key_id: str
    actor: bytes
    """A serialised modelplane.admin.v1.Actor."""
    project_id: str = ""
    """The only project whose key is meant; "" for any key of the organisation."""

    @property
    def name(self) -> tuple[str, str, str]:
        return self.organization_id, self.project_id, self.key_id

    @property
    def line(self) -> bytes:
        return b"\n" + msgspec.json.encode(self)


class Journal:
    """The open revocations by organisation, project and key, in the order in which they were made. Its methods raise
    OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._decoder = msgspec.json.Decoder(Revocation)
        self.revocations: dict[tuple[str, str, str], Revocation] = {}

    def has(self, organization_id: str, project_id: str, key_id: str) -> bool:
        """Whether the key that belongs to these is revoked."""
        return any((organization_id, owner, key_id) in self.revocations for owner in ("", project_id))

    def load(self) -> int:
        """Takes up what an earlier process has left; gives the number of lines that cannot be read."""
        unreadable = 0
        try:
            lines = [line for line in self._path.read_bytes().splitlines() if line]
        except FileNotFoundError:
            return 0
        for line in lines:
            try:
                revocation = self._decoder.decode(line)
            except msgspec.DecodeError:
                # Of a write that failed or of a process that died: nobody was told that it had happened.
                unreadable += 1
            else:
                self.revocations[revocation.name] = revocation
        return unreadable

    def add(self, revocation: Revocation) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(revocation.line)
            file.flush()
            os.fsync(file.fileno())
        self.revocations[revocation.name] = revocation

    def remove(self, revocations: Iterable[Revocation]) -> None:
        """Forgets those that the database has taken. If that fails they are only taken once more."""
        for revocation in revocations:
            self.revocations.pop(revocation.name, None)
        if not self.revocations:
            self._path.unlink(missing_ok=True)
            return
        written = self._path.with_name(self._path.name + ".new")
        with written.open("wb") as file:
            file.writelines(revocation.line for revocation in self.revocations.values())
            file.flush()
            os.fsync(file.fileno())
        written.replace(self._path)
