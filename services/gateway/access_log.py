"""The line that every answered call gets in the log, written a little later, together with others.

To write a line takes thirty functions that nothing else of a request needs. One after the other they are in the
processor's cache; at the end of every request they would have to be fetched each time.
"""

import asyncio
import time
from contextvars import Context, copy_context
from typing import Final

from services import telemetry

WRITE_AFTER_S: Final = 0.05
# So that many lines keep the event loop for a millisecond or two.
MOST_LINES: Final = 64

log = telemetry.logger(__name__)


class AccessLog:
    """Takes lines and writes them. Write what is left when the gateway stops."""

    def __init__(self) -> None:
        # Each with the call's context, for its request id and its trace, and the time of its answer.
        self._lines: list[tuple[Context, float, dict[str, object]]] = []

    def add(self, fields: dict[str, object]) -> None:
        """A call was answered just now."""
        if not self._lines:
            asyncio.get_running_loop().call_later(WRITE_AFTER_S, self.write)
        self._lines.append((copy_context(), time.time(), fields))
        if len(self._lines) >= MOST_LINES:
            self.write()

    def write(self) -> None:
        """Writes what there is."""
        lines, self._lines = self._lines, []
        for context, at_s, fields in lines:
            context.run(log.at, at_s, "request", fields)
