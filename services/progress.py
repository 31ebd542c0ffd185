"""Shows a person what the platform is doing while it starts, so that nobody wonders whether it hangs.

On a terminal the current step's line counts the seconds; elsewhere every step is a line, and a step that takes
long repeats itself now and then.
"""

import asyncio
import sys
import time
from typing import TextIO

TICK_S = 0.2
REMINDER_S = 10.0


class Progress:
    """Steps on `stream`. Use it as a context manager; `step` ends the step before it."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._step = ""
        self._started = 0.0
        self._reminded = 0.0
        self._ticker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Progress":
        self._ticker = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.end(failed=kind is not None)

    def step(self, text: str) -> None:
        """Begins a step; the same text again goes on with it."""
        if text == self._step:
            return
        self._finish("done")
        self._step = text
        self._started = self._reminded = time.monotonic()
        self._stream.write(f"\r\x1b[K  {text} …" if self._live else f"  {text} …\n")
        self._stream.flush()

    def end(self, failed: bool = False) -> None:
        """Ends the last step and stops counting."""
        if self._ticker:
            self._ticker.cancel()
            self._ticker = None
        self._finish("stopped" if failed else "done")

    def _finish(self, how: str) -> None:
        if not self._step:
            return
        seconds = time.monotonic() - self._started
        if self._live:
            self._stream.write(f"\r\x1b[K  {self._step}: {how} ({seconds:.1f} s)\n")
        elif seconds >= 1:
            self._stream.write(f"  {self._step}: {how} ({seconds:.1f} s)\n")
        self._stream.flush()
        self._step = ""

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if not self._step:
                continue
            now = time.monotonic()
            seconds = now - self._started
            if self._live:
                self._stream.write(f"\r\x1b[K  {self._step} … {seconds:.0f} s")
            elif now - self._reminded >= REMINDER_S:
                self._reminded = now
                self._stream.write(f"  {self._step} … {seconds:.0f} s so far\n")
            self._stream.flush()
