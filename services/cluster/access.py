"""Where the Kubernetes API is, whom to trust there, and as whom to ask.

Out of a pod's service account, or out of a kubeconfig. Two kinds of requests need no library: the generated client
of the whole API would take 100 MiB and two seconds of every start.
"""

import ssl
import tempfile
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from services.cluster.settings import ClusterSettings
from services.settings import SettingsError


class Access(NamedTuple):
    """`token` is one that stays, `token_file` one that is renewed; a user with a certificate in `trust` has neither."""

    server: str
    trust: ssl.SSLContext | None
    token: str = ""
    token_file: Path | None = None

    def headers(self) -> dict[str, str]:
        """Reads a file. Raises OSError."""
        token = self.token_file.read_text().strip() if self.token_file else self.token
        return {"authorization": f"Bearer {token}"} if token else {}


def access(settings: ClusterSettings) -> Access:
    """Reads files. Raises SettingsError."""
    try:
        if settings.kubeconfig is not None:
            return _of_kubeconfig(settings.kubeconfig)
        trust = ssl.create_default_context(cafile=str(settings.account / "ca.crt"))
    except OSError as error:
        raise SettingsError(f"the Kubernetes API cannot be asked: {error}") from error
    return Access(settings.server.rstrip("/"), trust, token_file=settings.account / "token")


def _of_kubeconfig(path: Path) -> Access:
    try:
        config = yaml.safe_load(path.read_text())
        context = _named(config, "context", config["current-context"])
        cluster, user = _named(config, "cluster", context["cluster"]), _named(config, "user", context["user"])
        server = str(cluster["server"]).rstrip("/")
        if "exec" in user or "auth-provider" in user:
            raise SettingsError(f"{path}: its user comes from a program; one with a certificate or a token is needed")
        trust = _trust(path.parent, cluster, user) if server.startswith("https:") else None
        file = path.parent / user["tokenFile"] if "tokenFile" in user else None
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise SettingsError(f"{path} is no kubeconfig with a current context: {error!r}") from error
    return Access(server, trust, user.get("token", ""), file)


def _named(config: Mapping[str, Any], kind: str, name: str) -> dict[str, Any]:
    for one in config[f"{kind}s"]:
        if one["name"] == name:
            found: dict[str, Any] = one[kind] or {}
            return found
    raise KeyError(f"{kind} {name}")


def _trust(folder: Path, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    authority = _content(folder, cluster, "certificate-authority")
    trust = ssl.create_default_context(cadata=authority.decode() if authority else None)
    pair = [_content(folder, user, key) for key in ("client-certificate", "client-key")]
    if all(pair):
        # They are taken out of a file alone.
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"\n".join(pair))
            file.flush()
            trust.load_cert_chain(file.name)
    return trust


def _content(folder: Path, holder: Mapping[str, Any], key: str) -> bytes:
    """What is in the document itself, or in a file that it names."""
    if f"{key}-data" in holder:
        return b64decode(holder[f"{key}-data"])
    return (folder / holder[key]).read_bytes() if key in holder else b""
