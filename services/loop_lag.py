"""Says how late the process's event loop is: with too much to do in one process, everything in it waits.

Processor time tells when a machine is busy; this tells when requests feel it, also where the loop stands still without
using any.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from prometheus_client import Gauge

LAG = Gauge(
    "modelplane_event_loop_lag_seconds", "Longest time in the last 15 seconds by which the event loop woke up late."
)

EVERY_S: Final = 0.25
KEPT: Final = 60


@asynccontextmanager
async def watched() -> AsyncIterator[None]:
    """The running loop is measured while entered."""
    task = asyncio.create_task(_watch(), name="event loop's lag")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _watch() -> None:
    loop = asyncio.get_running_loop()
    lately: deque[float] = deque(maxlen=KEPT)
    while True:
        due_s = loop.time() + EVERY_S
        await asyncio.sleep(EVERY_S)
        lately.append(max(0.0, loop.time() - due_s))
        LAG.set(max(lately))
