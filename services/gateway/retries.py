"""Tries again what has to be done for a request that its client has long had the answer to."""

import asyncio
from collections.abc import Awaitable, Callable

from services import context
from services.faults import Fault

FIRST_DELAY_S = 0.05
LAST_DELAY_S = 2.0


async def insist(ask: Callable[[], Awaitable[object]]) -> None:
    """Asks until it succeeds. Raises the fault that cannot pass, or the last one before the call's deadline."""
    delay_s = FIRST_DELAY_S
    while True:
        try:
            await ask()
            return
        except Fault as fault:
            if not fault.rule.retryable or not context.remaining_s():
                raise
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, LAST_DELAY_S)
