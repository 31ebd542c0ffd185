"""A pool's status: what its conditions say, when their time changes, and when it is written at all."""

from typing import Any

import pytest

from operators.model_pool.plan import Measured, Observed, Planned, Pool, Replica, State
from operators.model_pool.status import is_due, status, turned
from tests.operators.model_pool.played import PLATFORM, spec

POOL = Pool("a", spec(replicas={"min": 2, "max": 3}), "2026-01-01T00:00:00Z", 7)
READY, STARTING = Replica("r1", State.READY, "p1"), Replica("r2", State.STARTING)
OLD, DRAINING = Replica("r3", State.READY, "p3", current=False), Replica("r4", State.DRAINING, "p4")
NOTHING = Planned(())


def asked(wanted: int, *replicas: Replica, **more: Any) -> Observed:
    return Observed(asked=True, measured=Measured("g", wanted, replicas, **more))


def told(pool: Pool, seen: Observed, planned: Planned = NOTHING, before: Any = None, now: str = "t1") -> dict[str, Any]:
    return status(pool, seen, planned, before or {}, platform=PLATFORM, now=now)


CASES: dict[str, tuple[Pool, Observed, Planned, tuple[str, str, str]]] = {
    "pools do not answer": (POOL, Observed(trouble="away"), NOTHING, ("PoolsUnknown", "Starting", "OperatorStuck")),
    "not taken up": (POOL, Observed(asked=True), NOTHING, ("NotServedYet", "Starting", "Fine")),
    "one starts": (POOL, asked(2, READY, STARTING, waiting_for="loading"), NOTHING, ("Waiting", "Growing", "Fine")),
    "all are ready": (POOL, asked(1, READY, READY), NOTHING, ("Serving", "Settled", "Fine")),
    "one is outdated": (POOL, asked(2, READY, OLD), NOTHING, ("Serving", "Replacing", "Fine")),
    "one drains": (POOL, asked(2, READY, READY, DRAINING), NOTHING, ("Serving", "Shrinking", "Fine")),
    "none is wanted": (POOL, asked(0), NOTHING, ("ScaledToZero", "Settled", "Fine")),
    "one failed": (POOL, asked(2, READY, last_error="no"), NOTHING, ("Waiting", "Growing", "ReplicaFailed")),
    "refused": (POOL, Observed(asked=True), Planned((), "no price"), ("NotServedYet", "Refused", "Refused")),
    "deleted": (
        Pool("a", POOL.spec, deleting=True),
        asked(0, DRAINING, removed=True),
        NOTHING,
        ("Ending", "Ending", "Fine"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_reasons(case: str) -> None:
    pool, seen, planned, reasons = CASES[case]
    found = told(pool, seen, planned)
    assert tuple(one["reason"] for one in found["conditions"]) == reasons
    assert [one["type"] for one in found["conditions"]] == ["Ready", "Progressing", "Degraded"]


def test_it_says_why_it_waits() -> None:
    ready = told(POOL, asked(2, READY, STARTING, waiting_for="no node has room"))["conditions"][0]
    assert ready["message"] == "1 of 2 replicas are ready: no node has room."
    assert told(POOL, Observed(asked=True), Planned((), "no price"))["conditions"][0]["message"] == "no price"


def test_a_time_changes_with_its_status_alone() -> None:
    first = told(POOL, asked(2, READY, STARTING))
    second = told(POOL, asked(2, READY, STARTING, last_error="no"), before=first, now="t2")
    assert [one["lastTransitionTime"] for one in second["conditions"]] == ["t1", "t1", "t2"]
    assert [one.reason for one in turned(second, first)] == ["ReplicaFailed"]


def test_figures_are_written_when_they_are_due_and_what_means_something_at_once() -> None:
    first = told(POOL, asked(2, READY, READY, running=1))
    busier = told(POOL, asked(2, READY, READY, running=9), before=first)
    assert not is_due(busier, first, figures=False) and is_due(busier, first, figures=True)
    assert is_due(told(POOL, asked(2, READY), before=first), first, figures=False)
    assert not is_due(told(POOL, asked(2, READY, READY, running=1), before=first, now="t2"), first, figures=True)


def test_what_is_not_known_stays_as_it_was() -> None:
    first = told(POOL, asked(2, READY, READY, output_tokens_per_s=12.34))
    blind = told(POOL, Observed(trouble="away"), before=first)
    assert (blind["readyReplicas"], blind["outputTokensPerSecond"]) == (2, 12.3)
    assert blind["conditions"][0]["status"] == "Unknown"
