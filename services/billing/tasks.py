"""Ends background tasks, also one that did not hear of it the first time."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

# Until Python 3.12 `asyncio.wait_for`, by which psycopg waits for a socket, loses a cancellation that comes together
# with what it waits for: a task that has just connected would listen on for ever.
AGAIN_S: Final = 0.2


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels tasks and waits for them. What they raise is theirs."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_S)
