"""A loop that is held up says for how long, and forgets it."""

import asyncio
import time

import pytest

from services import loop_lag
from services.loop_lag import LAG, watched


def lag_s() -> float:
    [metric] = LAG.collect()
    return metric.samples[0].value


async def test_a_loop_that_is_held_up_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_lag, "EVERY_S", 0.01)
    monkeypatch.setattr(loop_lag, "KEPT", 5)
    async with watched():
        await asyncio.sleep(0.02)
        time.sleep(0.5)
        async with asyncio.timeout(30):
            while lag_s() < 0.4:
                await asyncio.sleep(0.005)
            while lag_s() > 0.4:
                await asyncio.sleep(0.005)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "event loop's lag"]
