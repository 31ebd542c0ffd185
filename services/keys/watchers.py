"""Tells everyone who remembers principals which of them are old.

Keeps true: a watcher is told everything that happens after its first answer, in order, or that it has missed something;
a watcher that does not read holds up nobody.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from modelplane.keys.v1.keys_pb2 import WatchResponse


class Watchers:
    """All streams of changes. Belongs to one event loop."""

    def __init__(self, waiting: int, beat_s: float) -> None:
        """Up to `waiting` changes wait for a slow watcher; each hears something every `beat_s`."""
        self._waiting = waiting
        self._beat_s = beat_s
        self._queues: set[asyncio.Queue[WatchResponse]] = set()

    def tell(self, change: WatchResponse) -> None:
        for queue in self._queues:
            if queue.qsize() < self._waiting:
                queue.put_nowait(change)
                continue
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait(WatchResponse(all=True))

    async def watch(self, first: Callable[[], list[WatchResponse]]) -> AsyncIterator[WatchResponse]:
        """An empty answer, what `first` says at that moment, and then everything that is told."""
        queue: asyncio.Queue[WatchResponse] = asyncio.Queue()
        self._queues.add(queue)
        try:
            yield WatchResponse()
            for change in first():
                yield change
            while True:
                try:
                    async with asyncio.timeout(self._beat_s):
                        change = await queue.get()
                except TimeoutError:
                    change = WatchResponse()
                yield change
        finally:
            self._queues.discard(queue)
