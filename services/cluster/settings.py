"""Settings of what asks Kubernetes."""

from pathlib import Path
from typing import ClassVar

from services.settings import Group


class ClusterSettings(Group, frozen=True, kw_only=True):
    """How the Kubernetes API is reached, by the processes that follow something there."""

    group: ClassVar[str] = "cluster"

    server: str = "https://kubernetes.default.svc"
    """URL of the API server, as pods reach it."""

    account: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount")
    """Folder with `token` and `ca.crt` of the service account. The token is read for each request, as the kubelet
    renews it."""

    kubeconfig: Path | None = None
    """A kubeconfig whose current context is used in place of both, for a process outside of the cluster. Its user has
    a certificate or a token; programs that would make one are not run. Default: none."""
