"""The folder that holds the state of a platform on one machine: secrets, credentials, and where it listens now.

Everything in it is for its owner only. Secrets that the platform needs to keep between runs (the pepper under
which keys are hashed, the token between services) are made once; credentials are those of the first run.
"""

import json
import os
import secrets
from pathlib import Path

import msgspec

from services.settings import PREFIX


class Credentials(msgspec.Struct, kw_only=True):
    """What a user needs to call the platform, as written to `credentials.json`."""

    base_url: str
    api_key: str
    admin_key: str
    organization: str
    project: str


class Home:
    """Reads and writes the small files under MODELPLANE_HOME."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def create(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def variables(self) -> dict[str, str]:
        """The settings that are kept in the home, made at the first call."""
        path = self.path / "secrets.json"
        if not path.exists():
            made = {
                f"{PREFIX}AUTH_PEPPER": secrets.token_hex(32),
                f"{PREFIX}RPC_TOKEN": secrets.token_hex(32),
            }
            self._write("secrets.json", json.dumps(made, indent=2))
        kept: dict[str, str] = json.loads(path.read_text())
        return kept

    def credentials(self) -> Credentials | None:
        try:
            return msgspec.json.decode((self.path / "credentials.json").read_bytes(), type=Credentials)
        except FileNotFoundError:
            return None

    def write_credentials(self, credentials: Credentials) -> None:
        encoded = msgspec.json.format(msgspec.json.encode(credentials), indent=2)
        self._write("credentials.json", encoded.decode() + "\n")

    def rpc_address(self) -> str | None:
        """Where the running platform's gRPC server listens; None when it does not run."""
        try:
            return (self.path / "rpc-address").read_text()
        except FileNotFoundError:
            return None

    def write_rpc_address(self, address: str) -> None:
        self._write("rpc-address", address)

    def remove_rpc_address(self) -> None:
        (self.path / "rpc-address").unlink(missing_ok=True)

    def _write(self, name: str, text: str) -> None:
        write_private(self.path / name, text.encode())


def write_private(path: Path, content: bytes) -> None:
    """Replaces a file in one step, and makes its folder; it is never readable by others, not even while it is written.
    Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
