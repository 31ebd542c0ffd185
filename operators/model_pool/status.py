"""A pool's status: what there is of it, and why it waits, in conditions that programs and people read.

Pure. What it keeps true: a condition's time changes only with its status; where nothing but figures changed that differ
at every look, nothing is written unless the figures are due.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from operators.model_pool.plan import Measured, Observed, Planned, Pool, State
from operators.model_pool.workers import CLUSTER_LABEL, POOL_LABEL, Platform

FIGURES: Final = frozenset(("queued", "running", "outputTokensPerSecond"))

Status = dict[str, Any]


class Condition(NamedTuple):
    """A condition without its time."""

    kind: str
    status: str
    reason: str
    message: str


def conditions(pool: Pool, seen: Observed, planned: Planned) -> tuple[Condition, Condition, Condition]:
    """Ready, Progressing and Degraded."""
    measured = seen.measured
    return (
        _ready(pool, seen, measured, planned),
        _progressing(pool, seen, measured, planned),
        _degraded(seen, measured, planned),
    )


def _ready(pool: Pool, seen: Observed, measured: Measured | None, planned: Planned) -> Condition:
    if not seen.asked:
        return Condition("Ready", "Unknown", "PoolsUnknown", seen.trouble or "The service pools was not asked yet.")
    if pool.deleting:
        return Condition("Ready", "False", "Ending", "The pool was deleted.")
    if measured is None:
        return Condition(
            "Ready", "False", "NotServedYet", planned.refused or "The service pools does not know the model yet."
        )
    least = int((pool.spec or {}).get("replicas", {}).get("min", 1))
    ready = measured.count(State.READY)
    if ready >= max(1, least):
        return Condition("Ready", "True", "Serving", f"{ready} of {measured.wanted} replicas are ready.")
    if not measured.wanted:
        return Condition("Ready", "True", "ScaledToZero", "The first request starts a replica.")
    why = measured.waiting_for or "replicas start"
    return Condition("Ready", "False", "Waiting", f"{ready} of {measured.wanted} replicas are ready: {why}.")


def _moves(reason: str, message: str) -> Condition:
    return Condition("Progressing", "True", reason, message)


def _progressing(pool: Pool, seen: Observed, measured: Measured | None, planned: Planned) -> Condition:
    if pool.deleting:
        left = len(measured.replicas) if measured else 0
        return _moves("Ending", f"{left} replicas finish what they have.")
    if planned.refused:
        return Condition("Progressing", "False", "Refused", "The object cannot be followed.")
    if not seen.asked or measured is None:
        return _moves("Starting", "The service pools takes up the model.")
    return _moving(measured)


def _moving(measured: Measured) -> Condition:
    outdated = sum(not replica.current for replica in measured.replicas)
    if outdated:
        return _moves("Replacing", f"{outdated} of {len(measured.replicas)} replicas are of an older configuration.")
    ready = measured.count(State.READY)
    if ready < measured.wanted:
        return _moves("Growing", f"{ready} of {measured.wanted} replicas are ready.")
    if draining := measured.count(State.DRAINING):
        return _moves("Shrinking", f"{draining} replicas finish what they have.")
    return Condition("Progressing", "False", "Settled", "Everything is as it should be.")


def _degraded(seen: Observed, measured: Measured | None, planned: Planned) -> Condition:
    if planned.refused:
        return Condition("Degraded", "True", "Refused", planned.refused)
    if seen.trouble:
        return Condition("Degraded", "True", "OperatorStuck", seen.trouble)
    if measured and measured.last_error:
        return Condition("Degraded", "True", "ReplicaFailed", measured.last_error[:1000])
    return Condition("Degraded", "False", "Fine", "Nothing failed.")


def status(
    pool: Pool,
    seen: Observed,
    planned: Planned,
    before: Mapping[str, Any],
    *,
    platform: Platform | None,
    now: str,
    startup_s: float | None = None,
) -> Status:
    """The whole status. `now` in RFC 3339; `startup_s`: of a replica that has become ready since the last look."""
    known = {one["type"]: one for one in before.get("conditions", ())}
    written = []
    for one in conditions(pool, seen, planned):
        last = known.get(one.kind, {})
        since = last.get("lastTransitionTime", now) if last.get("status") == one.status else now
        written.append(
            {
                "type": one.kind,
                "status": one.status,
                "reason": one.reason,
                "message": one.message,
                "lastTransitionTime": since,
                "observedGeneration": pool.generation,
            }
        )
    found: Status = {"observedGeneration": pool.generation, "conditions": written}
    if seen.asked:
        found |= _figures(seen.measured or Measured())
    else:
        # What is not known is as it was; whether it still holds, the condition Ready says.
        found |= {name: before[name] for name in _figures(Measured()) if name in before}
    found["selector"] = f"{CLUSTER_LABEL}={platform.ray_cluster},{POOL_LABEL}={pool.name}" if platform else ""
    if (seconds := startup_s if startup_s is not None else before.get("startupSeconds")) is not None:
        found["startupSeconds"] = seconds
    return found


def _figures(measured: Measured) -> Status:
    return {
        "replicas": len(measured.replicas),
        "readyReplicas": measured.count(State.READY),
        "wantedReplicas": measured.wanted,
        "queued": measured.queued,
        "running": measured.running,
        "outputTokensPerSecond": round(measured.output_tokens_per_s, 1),
        "generation": measured.generation,
    }


def is_due(status: Mapping[str, Any], before: Mapping[str, Any], figures: bool) -> bool:
    """Whether a status is worth writing; `figures`: also when only figures changed that change all the time."""
    changed = {name for name in status.keys() | before.keys() if status.get(name) != before.get(name)}
    return bool(changed if figures else changed - FIGURES)


def turned(status: Mapping[str, Any], before: Mapping[str, Any]) -> list[Condition]:
    """The conditions that mean something else than before, for events."""
    known = {one["type"]: (one["status"], one["reason"]) for one in before.get("conditions", ())}
    return [
        Condition(one["type"], one["status"], one["reason"], one["message"])
        for one in status["conditions"]
        if known.get(one["type"]) != (one["status"], one["reason"])
    ]
