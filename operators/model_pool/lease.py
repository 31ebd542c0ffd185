"""Which of several operators works: the one that holds the release's Lease.

A Lease is of Kubernetes itself, so that nothing has to be installed for it. Kept true: as long as clocks run at about
the same speed, no two believe that they hold it, for the holder stops before others may take it; whoever ends gives it
back, and another goes on at once.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from operators.kubernetes import Api, ApiError
from services import telemetry

log = telemetry.logger("services.model_pools")

# Parts of the lease's length: between two renewals, and after which a holder that could not renew it stops.
EVERY: Final = 1 / 6
STOP_AFTER: Final = 2 / 3


class Lease:
    """One candidate. `identity` must be another for each."""

    def __init__(
        self,
        *,
        api: Api,
        namespace: str,
        name: str,
        identity: str,
        length_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._name = name
        self._identity = identity
        self._length_s = length_s
        self._clock = clock
        # What the lease was, and since when it has not changed: others' clocks are not trusted.
        self._version = ""
        self._seen_at_s = clock()

    async def taken(self) -> None:
        """Returns once it is held. API errors are waited out."""
        waiting = False
        while True:
            try:
                if await self._try():
                    return
                if not waiting:
                    log.info("another operator works", lease=self._name)
                waiting = True
            except ApiError as error:
                log.warning("the lease cannot be taken", error=str(error))
            await asyncio.sleep(self._length_s * EVERY)

    async def kept(self) -> None:
        """Renews it, and returns when it is lost."""
        renewed_at_s = self._clock()
        while True:
            await asyncio.sleep(self._length_s * EVERY)
            left_s = self._length_s * STOP_AFTER - (self._clock() - renewed_at_s)
            started_at_s = self._clock()
            try:
                if not await asyncio.wait_for(self._try(), max(0.1, left_s)):
                    return
                renewed_at_s = started_at_s
            except (ApiError, TimeoutError) as error:
                if self._clock() - renewed_at_s >= self._length_s * STOP_AFTER:
                    log.error("the lease could not be renewed", error=str(error))
                    return

    async def give_back(self) -> None:
        """Lets another take it at once."""
        try:
            lease = await self._api.get(f"{self._path}/{self._name}")
            if lease["spec"].get("holderIdentity") == self._identity:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._api.call("PUT", f"{self._path}/{self._name}", lease)
        except ApiError as error:
            log.info("the lease was not given back", error=str(error))

    async def _try(self) -> bool:
        """Takes it or renews it. A change that somebody else made in between is a refusal."""
        try:
            lease = await self._api.get(f"{self._path}/{self._name}")
        except ApiError as error:
            if error.status != 404:
                raise
            return await self._write("POST", self._path, {"metadata": {"name": self._name}, "spec": {}})
        spec, version = lease.setdefault("spec", {}), lease["metadata"]["resourceVersion"]
        if version != self._version:
            self._version, self._seen_at_s = version, self._clock()
        holder = spec.get("holderIdentity")
        length_s = max(self._length_s, float(spec.get("leaseDurationSeconds") or 0))
        if holder not in ("", None, self._identity) and self._clock() - self._seen_at_s < length_s:
            return False
        return await self._write("PUT", f"{self._path}/{self._name}", lease)

    async def _write(self, method: str, path: str, lease: dict[str, Any]) -> bool:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = lease["spec"]
        if spec.get("holderIdentity") != self._identity:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = spec.get("leaseTransitions", 0) + 1
        spec |= {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._length_s)),
            "renewTime": now,
        }
        kind = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        try:
            self._version = (await self._api.call(method, path, kind | lease))["metadata"]["resourceVersion"]
        except ApiError as error:
            if error.status == 409:
                return False
            raise
        self._seen_at_s = self._clock()
        return True
