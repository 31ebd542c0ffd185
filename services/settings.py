"""Reads the environment once and turns it into frozen, typed groups of settings.

Each service documents its own group in `services/<service>/settings.py`; a field `port` of the group `gateway`
is the variable MODELPLANE_GATEWAY_PORT. Nothing else in the project looks at the environment, so what a process
was configured with can be seen in one place and passed to a child as a plain dictionary.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_origin

import msgspec

PREFIX = "MODELPLANE_"

ALIKE = 0.92
"""How much two names resemble each other, as difflib measures it, of which one is a slip of the other. Two settings
of different groups resemble each other less."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A group of settings. `group` is the middle of the variables' names; "" for the platform's own."""

    group: ClassVar[str] = ""


GroupT = TypeVar("GroupT", bound=Group)


class SettingsError(Exception):
    """A variable that cannot be used, with what it should look like."""


class PlatformSettings(Group, frozen=True, kw_only=True):
    """What every process of the platform needs to know."""

    home: Path = Path(".modelplane")
    """Folder of the platform's state: database, spool, logs, credentials."""

    cache: Path | None = None
    """Folder of prepared model weights, shared by all homes. Default: modelplane/ in the user's cache folder."""

    port: int = 8080
    """TCP port of the HTTP API."""

    host: str = "127.0.0.1"
    """Address that the HTTP API listens on. The default is reachable from this machine only."""

    database_url: str | None = None
    """PostgreSQL to use, `postgresql://…`. Default: an embedded server that keeps its data under `home`."""

    database_migrate: bool = True
    """Whether services bring the schema of `database_url` up to date when they start. Without it they wait until
    somebody has: `modelplane migrate`."""

    database_wait_s: float = 300.0
    """Seconds that a service that does not migrate waits for the schema."""

    config: Path | None = None
    """TOML file with the models to serve (`[[models]]`), or a folder of such files (`*.toml`), whose lists are joined.
    What they say is followed: a changed model needs no restart. Default: SmolLM2-135M-Instruct, one replica."""

    config_poll_s: float = 2.0
    """Seconds between two looks at the configured files. 0: they are read once."""

    grace_s: float = 30.0
    """Seconds that requests in flight may take to finish when the platform stops."""

    drain_delay_s: float = 0.0
    """Seconds between NOT_SERVING and refusing connections, so that load balancers notice first."""

    def cache_directory(self) -> Path:
        if self.cache is not None:
            return self.cache
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(base) / "modelplane"


@dataclass(frozen=True)
class Environment:
    """The variables that this process was started with; `variables` holds only the MODELPLANE_ ones."""

    variables: Mapping[str, str]

    @staticmethod
    def capture(overrides: Mapping[str, str] | None = None) -> "Environment":
        """The process's environment, with `overrides` on top."""
        found = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
        return Environment({**found, **(overrides or {})})

    def with_variables(self, variables: Mapping[str, str]) -> "Environment":
        return Environment({**self.variables, **variables})

    def group(self, kind: type[GroupT]) -> GroupT:
        """The group's values: from the environment where set and not empty, else their defaults.

        Raises SettingsError naming the variable when a value does not fit.
        """
        prefix = PREFIX + (f"{kind.group.upper()}_" if kind.group else "")
        values: dict[str, Any] = {}
        for field in msgspec.structs.fields(kind):
            name = prefix + field.name.upper()
            if text := self.variables.get(name):
                values[field.name] = _convert(name, text, field.type)
        return kind(**values)

    def misspelt(self) -> dict[str, str]:
        """Variables that are no setting although they look like one, each with the likeliest name, or "".

        Only groups that this process has loaded are known here: a name that resembles nothing of theirs may well be
        another process's.
        """
        groups = [(PREFIX + (f"{kind.group.upper()}_" if kind.group else ""), kind) for kind in Group.__subclasses__()]
        known = {prefix + field.name.upper() for prefix, kind in groups for field in msgspec.structs.fields(kind)}
        found = {}
        for name in self.variables:
            if name in known or name.endswith("_ADDRESS"):
                continue
            meant = get_close_matches(name, known, n=1, cutoff=ALIKE)
            if meant or any(prefix != PREFIX and name.startswith(prefix) for prefix, _ in groups):
                found[name] = "".join(meant)
        return found

    def address_of(self, service: str) -> str | None:
        """Where a service of another process listens (`host:port`), from MODELPLANE_<SERVICE>_ADDRESS."""
        return self.variables.get(f"{PREFIX}{service.upper()}_ADDRESS")


def _convert(name: str, text: str, kind: Any) -> Any:
    if kind in (Path, Path | None):
        return Path(text).expanduser()
    if get_origin(kind) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{name}={text!r} does not fit: {error}") from error
