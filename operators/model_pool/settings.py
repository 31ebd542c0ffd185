"""Settings of the operator of model pools."""

from pathlib import Path
from typing import ClassVar

from operators.model_pool.workers import Platform
from services.settings import Group


class Settings(Group, frozen=True, kw_only=True):
    """Where it finds what it keeps, and what the pods of all pools have in common."""

    group: ClassVar[str] = "model_pools"

    release: str = "modelplane"
    """What the names of the release begin with: `<release>-models` is the ConfigMap of the catalogue's entries, and
    `<release>-operator` the Lease."""

    ray_cluster: str = ""
    """The RayCluster whose worker groups are kept. Empty: replicas run where `pools` runs."""

    image: str = ""
    """Image of the workers, which a pool may replace by its own."""

    pull_policy: str = "IfNotPresent"
    """When nodes get the image."""

    pull_secrets: str = ""
    """Names of secrets for the registry, separated by commas."""

    worker_account: str = ""
    """Service account of the workers. Empty: the namespace's default one, whose token they do not get."""

    worker_labels: str = ""
    """Labels of the workers, `key=value,…`: what selects them in network policies."""

    tls_secret: str = ""
    """Secret with the workers' tls.crt, tls.key and ca.crt. Empty: no TLS."""

    tls_folder: str = "/etc/modelplane/tls"
    """Where workers find it: the same folder as in the pods of `pools`, which tells replicas of it."""

    cache_claim: str = ""
    """PersistentVolumeClaim of the folder of prepared weights. Empty: each pod has a folder of its own."""

    priority_class: str = ""
    """Priority class of the workers."""

    worker_grace_s: int = 60
    """Seconds that a worker may take to end when its node is drained."""

    interval_s: float = 2.0
    """Seconds between two looks at everything. Changes of objects are seen at once."""

    figures_s: float = 10.0
    """Seconds between two writes of a status in which nothing but figures changed."""

    account: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount")
    """Folder with the token, ca.crt and namespace of the service account. The namespace is the one that is served."""

    server: str = "https://kubernetes.default.svc"
    """The Kubernetes API."""

    timeout_s: float = 10.0
    """Seconds that the Kubernetes API or `pools` may take to answer."""

    refused_s: float = 30.0
    """Seconds for which the Kubernetes API may refuse the service account before the operator ends: after the release
    was removed it always will, and while it starts it may."""

    lease_s: float = 15.0
    """Seconds after which another process takes over from one that was not heard of."""

    health_listen: str = "127.0.0.1:9002"
    """`host:port` of /healthz, /readyz and /metrics, over HTTP."""

    def platform(self) -> Platform | None:
        """What the pods of all pools have in common; None where there are none."""
        if not self.ray_cluster:
            return None
        pairs = (pair.partition("=") for pair in self.worker_labels.split(",") if pair)
        return Platform(
            ray_cluster=self.ray_cluster,
            image=self.image,
            pull_policy=self.pull_policy,
            pull_secrets=tuple(name for name in self.pull_secrets.split(",") if name),
            service_account=self.worker_account,
            labels={key: value for key, _, value in pairs},
            tls_secret=self.tls_secret,
            tls_folder=self.tls_folder,
            cache_claim=self.cache_claim,
            priority_class=self.priority_class,
            grace_s=self.worker_grace_s,
        )
