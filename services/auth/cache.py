"""What is known of recently seen keys, so that a known key costs no I/O.

Keeps true:

- A key is looked up once however many ask for it together.
- After `forget…`, `revoke` or `clear` returns, no answer that was read before is given to a new caller or remembered;
  a revoked key is refused even if a look-up finds it.
- Good keys are bounded by the memory that they take.
- Good and unknown keys are bounded apart, so that guessing cannot push out good ones; each source may have unknown keys
  looked up at a bounded rate, which a key that was good when it was last looked up is not subject to.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

from modelplane.auth.v1.auth_pb2 import AuthenticateResponse, Principal
from services.auth.guesses import Clock, Guesses
from services.faults import Unavailable
from services.tally import Tally

LOOKUPS = Tally(
    "modelplane_auth_lookups",
    "Keys looked up, by where the answer came from.",
    ["source"],
    known=("memory", "keys"),
)

# Revocations are told again by whoever has not written them down yet, so that few need to be remembered.
MOST_REVOKED = 10_000

# Of a key, and of a name in its policies beside its characters, as measured.
KEY_BYTES = 2048
NAME_BYTES = 64

Load = Callable[[bytes], Awaitable[Principal | None]]
ValueT = TypeVar("ValueT")
NameT = TypeVar("NameT")


class Known(NamedTuple):
    """A good key. The answer belongs to everybody: read it, do not change it."""

    answer: AuthenticateResponse
    organization_id: str
    project_id: str
    key_id: str
    expires_at_ms: int


def known(principal: Principal) -> Known:
    return Known(
        AuthenticateResponse(principal=principal),
        principal.organization_id,
        principal.project_id,
        principal.key_id,
        principal.expires_at_ms,
    )


def weight(found: Known) -> int:
    """How many ordinary keys take as much memory: policies may have a thousand names."""
    principal = found.answer.principal
    names = len(principal.models.models) + len(principal.limits) + len(principal.ip_ranges) + len(principal.scopes)
    return 1 + (principal.ByteSize() + NAME_BYTES * names) // KEY_BYTES


def one(_: object) -> int:
    return 1


class Expiring(Generic[ValueT]):
    """A bounded map from digests to values that expire; the least recently used gives way. Times in seconds."""

    def __init__(
        self,
        size: int,
        ttl_s: float,
        dropped: Callable[[bytes, ValueT], None] | None = None,
        weigh: Callable[[ValueT], int] = one,
    ) -> None:
        """`size` is the most that its values weigh together, but for a single one, which always has room. `dropped`
        hears of everything that leaves, except by `clear`."""
        self._size = size
        self._ttl_s = ttl_s
        self._dropped = dropped
        self._weigh = weigh
        self._weight = 0
        self._entries: OrderedDict[bytes, tuple[float, ValueT, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, digest: bytes, now_s: float) -> ValueT | None:
        entry = self._entries.get(digest)
        if entry is None:
            return None
        if entry[0] <= now_s:
            self.forget(digest)
            return None
        self._entries.move_to_end(digest)
        return entry[1]

    def has(self, digest: bytes, now_s: float) -> bool:
        """For values that say nothing."""
        entry = self._entries.get(digest)
        return entry is not None and entry[0] > now_s

    def put(self, digest: bytes, value: ValueT, now_s: float) -> None:
        self.forget(digest)
        weight = self._weigh(value)
        self._entries[digest] = (now_s + self._ttl_s, value, weight)
        self._weight += weight
        while self._weight > self._size and len(self._entries) > 1:
            self.forget(next(iter(self._entries)))

    def forget(self, digest: bytes) -> None:
        entry = self._entries.pop(digest, None)
        if entry is None:
            return
        self._weight -= entry[2]
        if self._dropped is not None:
            self._dropped(digest, entry[1])

    def clear(self) -> None:
        self._entries.clear()
        self._weight = 0


class KeyCache:
    """Good keys by digest, from memory or from `load`, which returns None for an unknown key."""

    def __init__(
        self, load: Load, *, size: int, ttl_s: float, unknown: Expiring[None], guesses: Guesses, clock: Clock
    ) -> None:
        """Good keys: at most `size`, or fewer of which some are heavy, each for `ttl_s` seconds."""
        self._load = load
        self._size = size
        self._known: Expiring[Known] = Expiring(size, ttl_s, self._unindex, weight)
        self._unknown = unknown
        self._guesses = guesses
        self._clock = clock
        self._digests: dict[str, set[bytes]] = {}
        # Good when last looked up, even if forgotten since: looking them up again is no guess.
        self._familiar: OrderedDict[bytes, None] = OrderedDict()
        # Organisations, projects ("" for any) and ids of revoked keys, and the digests of those that were known.
        self._revoked: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        self._refused: OrderedDict[bytes, None] = OrderedDict()
        self._loading: dict[bytes, asyncio.Task[Known | None]] = {}

    def recall(self, digest: bytes) -> Known | None:
        """What is remembered of a good key."""
        found = self._known.get(digest, self._clock())
        if found is not None:
            LOOKUPS.counts["memory"] += 1
        return found

    async def find(self, digest: bytes, source: str) -> Known | None:
        """The same for any key, read when it is not remembered. Raises what `load` raises, and Unavailable while too
        many unknown keys are tried by `source`, or by all together."""
        found = self.recall(digest)
        if found is not None:
            return found
        if digest in self._refused or self._unknown.has(digest, self._clock()):
            LOOKUPS.counts["memory"] += 1
            return None
        task = self._loading.get(digest)
        if task is None:
            taken_from = None if digest in self._familiar else source
            if taken_from is not None and not self._guesses.take(taken_from):
                raise Unavailable(
                    "service_unavailable",
                    "Too many unknown API keys are being tried. Please try again in a moment.",
                    retry_after_ms=1000,
                )
            task = self._loading[digest] = asyncio.create_task(self._fetch(digest, taken_from))
            task.add_done_callback(retrieve)
        # A caller that gives up must not take the answer from the others.
        return await asyncio.shield(task)

    def forget(self, name: str) -> None:
        """Forgets the keys of an organisation or a project, or one key, by its id."""
        for digest in self._digests.pop(name, ()):
            self._known.forget(digest)
        self._overtake()

    def revoke(self, organization_id: str, project_id: str, key_id: str) -> None:
        """The key is refused from now on, without asking anybody, if it is the organisation's and, unless that is "",
        the project's."""
        _add(self._revoked, (organization_id, project_id, key_id))
        owned = self._digests.get(project_id or organization_id, set()) & self._digests.get(organization_id, set())
        for digest in self._digests.get(key_id, set()) & owned:
            _add(self._refused, digest)
            self._known.forget(digest)
        # Another's key of this id stays known: it may be that nobody can be asked for it again just now.
        self._overtake()

    def clear(self) -> None:
        """Forgets everything but what was revoked."""
        self._known.clear()
        self._digests.clear()
        self._unknown.clear()
        self._overtake()

    def _overtake(self) -> None:
        """What is being read may be old already: nobody new waits for it, and it is not remembered."""
        self._loading.clear()

    async def _fetch(self, digest: bytes, taken_from: str | None) -> Known | None:
        """`taken_from`: the source whose budget it was taken from, if any."""
        LOOKUPS.counts["keys"] += 1
        found, unknown = None, False
        try:
            principal = await self._load(digest)
            found = None if principal is None or self._is_revoked(principal) else known(principal)
            unknown = found is None
        finally:
            if taken_from is not None and not unknown:
                self._guesses.give_back(taken_from)
            current = self._loading.get(digest) is asyncio.current_task()
            if current:
                del self._loading[digest]
        if found is None:
            self._familiar.pop(digest, None)
        else:
            _add(self._familiar, digest, self._size)
        if current:
            self._remember(digest, found)
        return found

    def _is_revoked(self, principal: Principal) -> bool:
        owners = ("", principal.project_id)
        return any((principal.organization_id, owner, principal.key_id) in self._revoked for owner in owners)

    def _remember(self, digest: bytes, found: Known | None) -> None:
        if found is None:
            self._unknown.put(digest, None, self._clock())
            return
        self._known.put(digest, found, self._clock())
        for name in _names(found):
            self._digests.setdefault(name, set()).add(digest)

    def _unindex(self, digest: bytes, dropped: Known) -> None:
        for name in _names(dropped):
            digests = self._digests.get(name)
            if digests is not None:
                digests.discard(digest)
                if not digests:
                    del self._digests[name]


def _add(bounded: OrderedDict[NameT, None], name: NameT, most: int = MOST_REVOKED) -> None:
    bounded[name] = None
    bounded.move_to_end(name)
    if len(bounded) > most:
        bounded.popitem(last=False)


def _names(found: Known) -> tuple[str, ...]:
    """Whose changes concern the key. Ids of different things are different."""
    return found.organization_id, found.project_id or found.organization_id, found.key_id


def retrieve(task: "asyncio.Task[Known | None]") -> None:
    """Marks a failure as seen, for when every caller that waited for it has given up."""
    if not task.cancelled():
        task.exception()
