"""What is known of recently seen keys, so that a known key costs no I/O.

Keeps true:
- A key is looked up once however many ask for it together.
- After `forget` or `clear` returns, no answer that was read before is given to a new caller or remembered.
- Good and unknown keys are bounded apart, so that guessing cannot push out good ones.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from prometheus_client import Counter

from modelplane.auth.v1.auth_pb2 import AuthenticateResponse

LOOKUPS = Counter("modelplane_auth_lookups", "Keys looked up, by where the answer came from.", ["source"])

Load = Callable[[bytes], Awaitable[AuthenticateResponse | None]]


class Expiring:
    """A bounded map from digests to answers that expire; the least recently used gives way. Times in seconds."""

    def __init__(self, size: int, ttl_s: float) -> None:
        self._size = size
        self._ttl_s = ttl_s
        self._entries: OrderedDict[bytes, tuple[float, AuthenticateResponse | None]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, digest: bytes, now_s: float) -> tuple[float, AuthenticateResponse | None] | None:
        """(when it expires, the answer), or None when nothing is known."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        if entry[0] <= now_s:
            del self._entries[digest]
            return None
        self._entries.move_to_end(digest)
        return entry

    def put(self, digest: bytes, answer: AuthenticateResponse | None, now_s: float) -> None:
        self._entries[digest] = (now_s + self._ttl_s, answer)
        self._entries.move_to_end(digest)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def forget(self, digest: bytes) -> None:
        self._entries.pop(digest, None)

    def clear(self) -> None:
        self._entries.clear()


class KeyCache:
    """Answers by digest, from memory or from `load`, which returns None for an unknown key."""

    def __init__(self, load: Load, known: Expiring, unknown: Expiring, clock: Callable[[], float]) -> None:
        """`clock` gives seconds that never go back."""
        self._load = load
        self._known = known
        self._unknown = unknown
        self._clock = clock
        self._loading: dict[bytes, asyncio.Task[AuthenticateResponse | None]] = {}
        self._hits = LOOKUPS.labels("memory")
        self._misses = LOOKUPS.labels("database")

    def recall(self, digest: bytes) -> AuthenticateResponse | None:
        """What is remembered of a good key. The answer belongs to everybody: do not change it."""
        entry = self._known.get(digest, self._clock())
        if entry is None:
            return None
        self._hits.inc()
        return entry[1]

    async def find(self, digest: bytes) -> AuthenticateResponse | None:
        """The same for any key, read when it is not remembered. Raises what `load` raises."""
        answer = self.recall(digest)
        if answer is not None:
            return answer
        if self._unknown.get(digest, self._clock()) is not None:
            self._hits.inc()
            return None
        task = self._loading.get(digest)
        if task is None:
            task = self._loading[digest] = asyncio.create_task(self._fetch(digest))
            task.add_done_callback(retrieve)
        # A caller that gives up must not take the answer from the others.
        return await asyncio.shield(task)

    def forget(self, digest: bytes) -> None:
        self._known.forget(digest)
        self._unknown.forget(digest)
        self._loading.pop(digest, None)

    def clear(self) -> None:
        self._known.clear()
        self._unknown.clear()
        self._loading.clear()

    async def _fetch(self, digest: bytes) -> AuthenticateResponse | None:
        self._misses.inc()
        try:
            answer = await self._load(digest)
        finally:
            # Gone from there, it was overtaken by `forget` or `clear`: what it read is old.
            current = self._loading.get(digest) is asyncio.current_task()
            if current:
                del self._loading[digest]
        if current:
            (self._unknown if answer is None else self._known).put(digest, answer, self._clock())
        return answer


def retrieve(task: asyncio.Task[AuthenticateResponse | None]) -> None:
    """Marks a failure as seen, for when every caller that waited for it has given up."""
    if not task.cancelled():
        task.exception()
