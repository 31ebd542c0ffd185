"""Why a replica has no process, in words for people."""

import pytest

from services.pools.driver import waits_for

WORKER = {"CPU": 4.0, "GPU": 1.0, "pool-small": 1.0}


@pytest.mark.parametrize(
    ("needs", "free", "reason", "crowded"),
    [
        ({"CPU": 0.0, "GPU": 0.0}, {}, "waiting for a process", False),
        ({"pool-large": 1.0}, {}, "no node offers pool-large", False),
        ({"GPU": 2.0}, WORKER, "no node offers 2 GPU", False),
        ({"CPU": 8.0, "pool-small": 1.0}, WORKER, "no node offers 8 CPU", False),
        ({"pool-small": 1.0, "disk": 1.0}, WORKER, "no node offers pool-small and disk together", False),
        ({"pool-small": 1.0}, {"CPU": 4.0}, "no node has pool-small free", True),
        ({"GPU": 1.0}, {"GPU": 0.5}, "no node has 1 GPU free", True),
        ({"pool-small": 1.0}, WORKER, "waiting for a process", False),
    ],
)
def test_reasons(needs: dict[str, float], free: dict[str, float], reason: str, crowded: bool) -> None:
    assert waits_for(needs, [WORKER, {"disk": 5.0}], free) == (reason, crowded)
