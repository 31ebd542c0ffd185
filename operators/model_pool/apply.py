"""One turn of the operator: looks at every pool and at everything that belongs to it, plans, and carries that out.

A turn begins from what is, so that one that broke off in the middle needs nothing but another. The RayCluster's groups
are one list that all pools share: it is written against the version that was read, and a turn that somebody came in
between begins again.
"""

import time
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from prometheus_client import Counter, Gauge

from modelplane.pools.v1 import pools_pb2
from modelplane.pools.v1.pools_api import PoolsService
from operators.kubernetes import Api, ApiError
from operators.model_pool import crd
from operators.model_pool.entry import key_of
from operators.model_pool.plan import (
    Action,
    AddGroup,
    DropEntry,
    DropGroup,
    Measured,
    Observed,
    Planned,
    Pod,
    Pool,
    PutEntry,
    Release,
    Replica,
    ScaleGroup,
    State,
    carried_out,
    own_groups,
    plan,
)
from operators.model_pool.settings import Settings
from operators.model_pool.status import Condition, is_due, status, turned
from operators.model_pool.workers import CLUSTER_LABEL, GROUP_LABEL, MODEL_ANNOTATION, POOL_LABEL, Document
from services import context as calls
from services import telemetry
from services.catalog import read
from services.faults import Fault
from services.settings import SettingsError

log = telemetry.logger("services.model_pools")

TURNS = Counter("modelplane_model_pools_turns", "Looks at all pools, by outcome: done, conflict, failed", ["outcome"])
ACTIONS = Counter("modelplane_model_pools_actions", "What was done, by kind of action", ["action"])
OBJECTS = Gauge("modelplane_model_pools_objects", "ModelPools that there are")

ATTEMPTS: Final = 3
FINALIZER: Final = f"{crd.GROUP}/drained"
STATES: Final[Mapping[int, State]] = {
    pools_pb2.REPLICA_STATE_STARTING: State.STARTING,
    pools_pb2.REPLICA_STATE_READY: State.READY,
    pools_pb2.REPLICA_STATE_DRAINING: State.DRAINING,
}
GROUP_ACTIONS: Final = (AddGroup, ScaleGroup, DropGroup)


class Turns:
    """Keeps everything as the objects of one namespace say. `static` is the catalogue's other files, if any."""

    def __init__(
        self, api: Api, pools: PoolsService, settings: Settings, namespace: str, static: Path | None = None
    ) -> None:
        self._api = api
        self._pools = pools
        self._settings = settings
        self._static = static
        self._platform = settings.platform()
        self._namespace = namespace
        self._core = f"/api/v1/namespaces/{namespace}"
        self._objects = f"/apis/{crd.GROUP}/{crd.VERSION}/namespaces/{namespace}/{crd.PLURAL}"
        self._entries = f"{self._core}/configmaps/{settings.release}-models"
        self._cluster = f"/apis/ray.io/v1/namespaces/{namespace}/rayclusters/{settings.ray_cluster}"
        self._written_at_s: dict[str, float] = {}
        # Replicas that started at the last look.
        self._starting: frozenset[str] = frozenset()

    @property
    def objects(self) -> str:
        """Path of the namespace's objects."""
        return self._objects

    async def turn(self) -> None:
        """Raises ApiError."""
        for left in reversed(range(ATTEMPTS)):
            try:
                await self._turn()
            except ApiError as error:
                TURNS.labels("conflict" if error.status == 409 else "failed").inc()
                if not (left and error.status == 409):
                    raise
            else:
                TURNS.labels("done").inc()
                return

    async def _turn(self) -> None:
        listed = (await self._api.get(self._objects))["items"]
        objects = {one["metadata"]["name"]: one for one in sorted(listed, key=_age)}
        OBJECTS.set(len(objects))
        for one in objects.values():
            metadata = one["metadata"]
            if "deletionTimestamp" not in metadata and FINALIZER not in metadata.get("finalizers", ()):
                await self._hold(metadata, True)
        entries = dict((await self._api.get(self._entries)).get("data") or {})
        cluster, pods, trouble = await self._workers()
        measured, unanswered = await self._measured()
        groups: list[Document] = list((cluster or {}).get("spec", {}).get("workerGroupSpecs") or ())
        static = self._static_files()
        gone = {key.removesuffix(".toml") for key in entries} | {_made_for(group, POOL_LABEL) for group in groups} - {
            ""
        }
        pools = [*map(_pool, objects.values()), *(Pool(name, None) for name in sorted(gone - objects.keys()))]
        holders, elsewhere = _holders(pools, entries, groups), _models(static)
        starting = set()
        for pool in pools:
            key = key_of(pool.name)
            model = _model(pool, entries.get(key), groups)
            own, holder = own_groups(pool.name, groups), holders[model]
            # What the chart's values or another pool have by the same name is theirs.
            served = holder == pool.name and (key in entries or own or model not in elsewhere)
            mine = _measured(measured[model]) if measured and served and model in measured else None
            others = {Path(name): text.encode() for name, text in entries.items() if name != key}
            seen = Observed(
                entry=entries.get(key),
                others=static | others,
                groups=own,
                pods=pods,
                asked=measured is not None,
                measured=mine,
                holder="" if holder == pool.name else holder,
                trouble=trouble or unanswered,
            )
            # Without its RayCluster nothing can be known of a pool's groups.
            planned = plan(pool, seen, self._platform) if not trouble else Planned((), "", seen.entry)
            groups = await self._carry_out(pool, planned.actions, cluster, groups)
            if planned.entry is None:
                entries.pop(key, None)
            else:
                entries[key] = planned.entry
            if mine:
                starting |= {one.replica_id for one in mine.replicas if one.state is State.STARTING}
            if pool.name in objects:
                await self._tell(pool, objects[pool.name], seen, planned)
                if any(isinstance(action, Release) for action in planned.actions):
                    await self._hold(objects[pool.name]["metadata"], False)
        self._starting = frozenset(starting)

    async def _hold(self, metadata: Mapping[str, Any], held: bool) -> None:
        """Lets an object that is deleted stay until nothing of it is left, or lets it go."""
        others = [name for name in metadata.get("finalizers", ()) if name != FINALIZER]
        finalizers = [*others, FINALIZER] if held else others
        changes = {"resourceVersion": metadata["resourceVersion"], "finalizers": finalizers}
        try:
            await self._api.patch(f"{self._objects}/{metadata['name']}", {"metadata": changes})
        except ApiError as error:
            if error.status != 404:
                raise

    async def _carry_out(
        self, pool: Pool, actions: Sequence[Action], cluster: dict[str, Any] | None, groups: list[Document]
    ) -> list[Document]:
        """The RayCluster's groups after the actions, which are written one pool after the other."""
        for action in actions:
            ACTIONS.labels(type(action).__name__).inc()
            if not isinstance(action, Release):
                log.info("acts", pool=pool.name, action=_described(action))
        if cluster is not None and any(isinstance(action, GROUP_ACTIONS) for action in actions):
            groups = carried_out(groups, actions)
            version = {"resourceVersion": cluster["metadata"]["resourceVersion"]}
            changes = {"metadata": version, "spec": {"workerGroupSpecs": groups}}
            cluster["metadata"] = (await self._api.patch(self._cluster, changes))["metadata"]
        for action in actions:
            if isinstance(action, PutEntry | DropEntry):
                text = action.text if isinstance(action, PutEntry) else None
                await self._api.patch(self._entries, {"data": {key_of(pool.name): text}})
        return groups

    async def _tell(self, pool: Pool, document: Mapping[str, Any], seen: Observed, planned: Planned) -> None:
        """Writes the status when it is due, and an event for each of its turns."""
        before = document.get("status") or {}
        now, now_s = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), time.monotonic()
        found = status(
            *(pool, seen, planned, before),
            platform=self._platform,
            now=now,
            startup_s=self._startup_s(seen.measured),
        )
        figures = now_s - self._written_at_s.get(pool.name, -self._settings.figures_s) >= self._settings.figures_s
        if not is_due(found, before, figures):
            return
        nothing = dict.fromkeys(before.keys() - found.keys())
        try:
            await self._api.patch(f"{self._objects}/{pool.name}/status", {"status": found | nothing})
        except ApiError as error:
            if error.status != 404:
                raise
            return  # It was let go in between.
        self._written_at_s[pool.name] = now_s
        for one in turned(found, before):
            log.info("condition", pool=pool.name, kind=one.kind, status=one.status, reason=one.reason)
            await self._event(document["metadata"], one, now)

    async def _event(self, metadata: Mapping[str, Any], condition: Condition, now: str) -> None:
        bad = condition.status != ("False" if condition.kind == "Degraded" else "True")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{metadata['name']}."},
            "involvedObject": {
                "apiVersion": f"{crd.GROUP}/{crd.VERSION}",
                "kind": crd.KIND,
                "name": metadata["name"],
                "namespace": self._namespace,
                "uid": metadata["uid"],
            },
            "type": "Warning" if bad and condition.kind != "Progressing" else "Normal",
            "reason": condition.reason,
            "message": f"{condition.kind}: {condition.message}"[:1000],
            "source": {"component": "modelplane-operator"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        await self._api.call("POST", f"{self._core}/events", event)

    def _startup_s(self, measured: Measured | None) -> float | None:
        """Of a replica that was starting at the last look and is ready now."""
        ready = [
            replica
            for replica in (measured.replicas if measured else ())
            if replica.state is State.READY and replica.replica_id in self._starting
        ]
        return round(time.time() - max(one.started_at_ms for one in ready) / 1000, 1) if ready else None

    async def _workers(self) -> tuple[dict[str, Any] | None, tuple[Pod, ...], str]:
        """The RayCluster, the pods of its groups, and why they cannot be known."""
        if self._platform is None:
            return None, (), ""
        try:
            cluster = await self._api.get(self._cluster)
        except ApiError as error:
            if error.status != 404:
                raise
            return None, (), f"There is no RayCluster {self._settings.ray_cluster}."
        selector = f"{CLUSTER_LABEL}={self._settings.ray_cluster},{POOL_LABEL}"
        listed = (await self._api.get(f"{self._core}/pods", labelSelector=selector))["items"]
        return cluster, tuple(map(_pod, listed)), ""

    async def _measured(self) -> tuple[dict[str, pools_pb2.PoolInfo] | None, str]:
        """What `pools` says of each model, or why it does not."""
        try:
            with calls.call("", self._settings.timeout_s):
                answer = await self._pools.list_pools(pools_pb2.ListPoolsRequest())
        except Fault as fault:
            return None, f"The service pools does not answer: {fault.message}"
        return {info.model: info for info in answer.pools}, ""

    def _static_files(self) -> dict[Path, bytes]:
        if self._static is None:
            return {}
        try:
            return dict(read(self._static))
        except SettingsError as error:
            log.warning("the other files of the catalogue are not known", error=str(error))
            return {}


def _age(document: Mapping[str, Any]) -> tuple[str, str]:
    """Of two pools that claim one name, the older keeps it."""
    return document["metadata"]["creationTimestamp"], document["metadata"]["name"]


def _pool(document: Mapping[str, Any]) -> Pool:
    metadata = document["metadata"]
    return Pool(
        name=metadata["name"],
        spec=document["spec"],
        created=metadata["creationTimestamp"],
        generation=metadata["generation"],
        deleting="deletionTimestamp" in metadata,
    )


def _made_for(group: Document, label: str, kind: str = "labels") -> str:
    """What a group's pods say of the pool that they were made for; "" for a group that is not ours."""
    return str((group.get("template", {}).get("metadata", {}).get(kind) or {}).get(label, ""))


def _model(pool: Pool, entry: str | None, groups: Sequence[Document]) -> str:
    """The pool's model: of its object, or of what one has left behind."""
    if pool.spec is not None:
        return str(pool.spec["model"])
    for group in own_groups(pool.name, groups).values():
        return _made_for(group, MODEL_ANNOTATION, "annotations")
    return next(iter(_models({Path(pool.name): (entry or "").encode()})), "")


def _models(files: Mapping[Path, bytes]) -> list[str]:
    """The names of the models in files of the catalogue; of what cannot be read, none."""
    try:
        return [str(model["name"]) for text in files.values() for model in tomllib.loads(text.decode())["models"]]
    except (ValueError, LookupError, TypeError):
        return []


def _holders(pools: Sequence[Pool], entries: Mapping[str, str], groups: Sequence[Document]) -> dict[str, str]:
    """Which pool has each model: the one that something is there of, else the oldest."""
    found: dict[str, str] = {}
    for pool in sorted(pools, key=lambda pool: not (key_of(pool.name) in entries or own_groups(pool.name, groups))):
        found.setdefault(_model(pool, entries.get(key_of(pool.name)), groups), pool.name)
    return found


def _pod(document: Mapping[str, Any]) -> Pod:
    metadata = document["metadata"]
    conditions = document.get("status", {}).get("conditions") or ()
    ended = document.get("status", {}).get("phase") in ("Failed", "Succeeded")
    return Pod(
        name=metadata["name"],
        group=metadata["labels"].get(GROUP_LABEL, ""),
        ready=any(one["type"] == "Ready" and one["status"] == "True" for one in conditions),
        leaving=ended or "deletionTimestamp" in metadata,
    )


def _measured(info: pools_pb2.PoolInfo) -> Measured:
    return Measured(
        generation=info.generation,
        wanted=info.wanted,
        replicas=tuple(
            Replica(
                one.id,
                STATES.get(one.state, State.STARTING),
                one.node_name,
                one.generation == info.generation,
                one.started_at_ms,
            )
            for one in info.replicas
        ),
        queued=info.queued,
        running=info.running,
        output_tokens_per_s=info.output_tokens_per_s,
        last_error=info.last_error,
        waiting_for=info.waiting_for,
        removed=info.removed,
    )


def _described(action: Action) -> str:
    match action:
        case AddGroup(document):
            return f"adds the group {document['groupName']}"
        case ScaleGroup(group, replicas, leaving):
            return f"gives {group} {replicas} pods" + (f", without {', '.join(leaving)}" if leaving else "")
        case DropGroup(group):
            return f"takes the group {group} away"
        case PutEntry():
            return "writes the entry"
        case _:
            return "takes the entry out"
