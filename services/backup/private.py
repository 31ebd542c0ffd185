"""The secrets of a platform as a backup sees them: from the environment, else from the home, and never made here."""

import json
from pathlib import Path
from typing import Final, NamedTuple

from services.home import write_private
from services.key_format import KeySettings
from services.rpc.settings import RpcSettings
from services.settings import PREFIX, Environment, PlatformSettings

FILE: Final = "secrets.json"
CREDENTIALS: Final = "credentials.json"


class Secrets(NamedTuple):
    """`environment` with what the home keeps."""

    home: Path
    environment: Environment

    @staticmethod
    def of(environment: Environment) -> "Secrets":
        """Raises OSError."""
        home = environment.group(PlatformSettings).home
        try:
            kept: dict[str, str] = json.loads((home / FILE).read_text())
        except FileNotFoundError:
            kept = {}
        return Secrets(home, Environment({**kept, **environment.variables}))

    @property
    def pepper_key(self) -> bytes:
        return self.environment.group(KeySettings).hash_key

    @property
    def has_pepper(self) -> bool:
        return bool(self.environment.group(KeySettings).pepper)

    def copy(self, folder: Path) -> None:
        """What is in force, as a home has it, and the first run's credentials."""
        in_force = {
            f"{PREFIX}AUTH_PEPPER": self.environment.group(KeySettings).pepper,
            f"{PREFIX}RPC_TOKEN": self.environment.group(RpcSettings).token,
        }
        write_private(folder / FILE, json.dumps({name: value for name, value in in_force.items() if value}).encode())
        if (self.home / CREDENTIALS).exists():
            write_private(folder / CREDENTIALS, (self.home / CREDENTIALS).read_bytes())
