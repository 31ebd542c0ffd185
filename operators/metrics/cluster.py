"""The two things that must be asked of Kubernetes: which pods are ready, and whose certificate its API server shows."""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from operators.kubernetes import Api, ApiError

SERVICE: Final = "kubernetes.io/service-name"
AUTHENTICATION: Final = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"


class ClusterError(Exception):
    """The Kubernetes API did not answer, or not with what was asked for."""


class FrontProxy(NamedTuple):
    """Who speaks for users: the authority of its certificate in PEM, and its possible names (any, when empty)."""

    authority: str
    names: frozenset[str]


class Cluster:
    """What the API says of it."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def ready_pods(self, namespace: str, services: Mapping[str, str]) -> dict[str, dict[str, str]]:
        """For each group the address of each ready pod by its uid. Raises ClusterError."""
        slices = await self._get(
            f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
            # Version 0: out of the API server's memory.
            labelSelector=f"{SERVICE} in ({','.join(sorted(set(services.values())))})",
            resourceVersion="0",
        )
        found: dict[str, dict[str, str]] = {service: {} for service in services.values()}
        # IPv4 comes before IPv6: a pod that has both is in two slices and counts once.
        for piece in sorted(slices["items"], key=lambda piece: str(piece["addressType"])):
            pods = found[piece["metadata"]["labels"][SERVICE]]
            for endpoint in piece.get("endpoints") or ():
                conditions = endpoint.get("conditions", {})
                if conditions.get("ready", True) and not conditions.get("terminating"):
                    address = str(endpoint["addresses"][0])
                    pods.setdefault(endpoint.get("targetRef", {}).get("uid", address), address)
        return {group: found[service] for group, service in services.items()}

    async def front_proxy(self) -> FrontProxy:
        """Raises ClusterError, also when the cluster has no aggregation layer."""
        data = (await self._get(AUTHENTICATION)).get("data", {})
        if not data.get("requestheader-client-ca-file"):
            raise ClusterError("the cluster names no authority for its front proxy: its aggregation layer is off")
        names = json.loads(data.get("requestheader-allowed-names") or "[]")
        return FrontProxy(data["requestheader-client-ca-file"], frozenset(names))

    async def _get(self, path: str, **query: str) -> dict[str, Any]:
        try:
            return await self._api.get(path, **query)
        except ApiError as error:
            raise ClusterError(str(error)) from error
