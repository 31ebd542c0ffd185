"""Settings of the external metrics API."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from services.settings import Group, SettingsError


class Settings(Group, frozen=True, kw_only=True):
    """Where it listens, which pods it asks, and how old a figure may be."""

    group: ClassVar[str] = "external_metrics"

    listen: str = "127.0.0.1:8443"
    """`host:port` of the HTTPS API; without a host on all addresses."""

    health_listen: str = "127.0.0.1:9002"
    """`host:port` of /healthz, /readyz and /metrics, over HTTP."""

    tls_folder: Path = Path("/etc/modelplane/tls")
    """Folder with tls.crt and tls.key, which are read again when they change."""

    account: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount")
    """Folder with the token, ca.crt and namespace of the service account. The namespace is the one that is served."""

    server: str = "https://kubernetes.default.svc"
    """The Kubernetes API."""

    groups: str = ""
    """The groups and the Service that selects each one's pods, `gateway=modelplane-gateway,auth=modelplane-auth`."""

    pods_port: int = 9002
    """TCP port of the pods' /metrics."""

    interval_s: float = 5.0
    """Seconds between two looks at the pods."""

    timeout_s: float = 4.0
    """Seconds that a pod or the Kubernetes API may take to answer."""

    window_s: float = 20.0
    """Seconds over which levels are averaged and rates are measured."""

    stale_s: float = 15.0
    """Age at which a pod's figure is too old: its group's figures are withheld until there is a new one."""

    def services(self) -> Mapping[str, str]:
        """The Service of each group. Raises SettingsError."""
        pairs = [pair.partition("=") for pair in self.groups.split(",")]
        if not all(group.strip() and service.strip() for group, _, service in pairs):
            raise SettingsError(f"MODELPLANE_EXTERNAL_METRICS_GROUPS={self.groups!r} should be group=service,…")
        return {group.strip(): service.strip() for group, _, service in pairs}
