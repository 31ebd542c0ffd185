"""The function that Valkey runs for a decision: how it is loaded, asked and understood.

`function.lua` beside this module is the other side. Its name carries a hash of its text, so that gateways of two
versions can use one Valkey, and a Valkey that lost it (restarted, flushed) says so and is given it again.
"""

import struct
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from services.ratelimit.buckets import BucketKey, Correction, Need
from services.ratelimit.gcra import Bucket, Claim
from services.ratelimit.shared.connection import Connection, ServerError, Word

_REAL_CLOCK: Final = -1
_NOT_LOADED: Final = "Function not found"


class Ask(NamedTuple):
    """One bucket's part in a decision: the need, and what concerns the asker's lease of the bucket."""

    need: Need
    wanted: int = 0
    """Units to hold on a lease from now on; fewer are given when there is little, none when something is short."""

    handed_out_ns: int = 0
    """Refilling time of what was handed out of the lease since it was last told."""

    keep: bool = True
    """Whether the asker still hands out of the lease that it has. If not, what is left of it ends."""


class Answer(NamedTuple):
    """What the function says of one bucket."""

    now_ns: int
    """The bucket's own time: the server's clock without its steps backwards."""

    offset_ns: int
    """Time until it is full, before anything was taken for the need."""

    given_back_ns: int
    held_ns: int
    """Refilling time that all leases may still cost, after the decision."""

    leased: int
    """Units that the asker now has on a lease."""

    def bucket(self) -> Bucket:
        """The queue of refilling that the decision was made on."""
        return Bucket(0, self.now_ns + self.offset_ns, self.given_back_ns)

    def claim(self, units: int) -> Claim:
        """The claim on `units` that was made on it."""
        return Claim(units, self.now_ns, self.now_ns + self.offset_ns, self.given_back_ns)


class Reply(NamedTuple):
    """Whether everything fitted, and the buckets in the order of the needs."""

    fits: bool
    answers: tuple[Answer, ...]


class Request(NamedTuple):
    """One decision: what was handed out of leases is accounted for, corrections are made, needs are taken."""

    corrections: Sequence[Correction] = ()
    asks: Sequence[Ask] = ()
    forced: bool = False
    share: float = 0.0
    """The most that a lease may be of what is left of a bucket."""

    holder: int = 0
    """Whose leases are meant, below 2^53."""

    lease_us: int = 0
    """Time after which a lease that was not heard of again is charged in full."""

    clock_us: int = _REAL_CLOCK
    """The time to decide at, for tests. Otherwise it is the server's own."""


class Function:
    """The function as it is in this version of the code."""

    def __init__(self) -> None:
        text = Path(__file__).with_name("function.lua").read_text()
        version = sha256(text.encode()).hexdigest()[:12]
        self._source = text.replace("VERSION", version)
        self._name = f"modelplane_decide_{version}"

    async def load(self, connection: Connection) -> None:
        """Gives Valkey the function. Raises Unreachable or ServerError."""
        await connection.call("FUNCTION", "LOAD", "REPLACE", self._source)

    async def decide(
        self, connection: Connection, request: Request, late: Callable[[Reply], None] | None = None
    ) -> Reply:
        """One decision. Raises Unreachable or ServerError; a Valkey that does not know the function is given it.

        When the call is cancelled, `late` gets the reply.
        """
        keys, payload = encode(request)
        words: tuple[Word, ...] = ("FCALL", self._name, len(keys), *keys, payload)

        def too_late(raw: bytes) -> None:
            if late is not None:
                late(decode(raw))

        try:
            raw = await connection.call(*words, late=too_late)
        except ServerError as error:
            if _NOT_LOADED not in str(error):
                raise
            await self.load(connection)
            raw = await connection.call(*words, late=too_late)
        return decode(raw)


def name(key: BucketKey) -> str:
    """What the bucket is called in Valkey. What stands in braces decides on the node of a cluster."""
    tag = key.organization_id or key.owner_id
    return f"modelplane:limit:{{{tag}}}:{key.scope}:{key.owner_id}:{key.model}:{key.dimension}"


def encode(request: Request) -> tuple[list[str], bytes]:
    """The names of the buckets and the argument of the function."""
    corrections, asks, forced, share, holder, lease_us, clock_us = request
    places: dict[BucketKey, int] = {}
    values: list[float] = [clock_us, forced, share, holder, lease_us, len(corrections), len(asks)]
    for (key, (most, interval_ns), units), wanted, handed_out_ns, keep in asks:
        place = places.setdefault(key, len(places) + 1)
        values += (place, most, interval_ns, units, wanted, handed_out_ns, keep)
    for key, (_, interval_ns), (units, taken_ns, starts_ns, given_back_ns), used in corrections:
        place = places.setdefault(key, len(places) + 1)
        values += (place, interval_ns, units, used, taken_ns // 1000, starts_ns - taken_ns, given_back_ns)
    return [name(key) for key in places], struct.pack(f"<{len(values)}d", *values)


def decode(raw: bytes) -> Reply:
    """The function's reply."""
    fits, *values = map(int, struct.unpack(f"<{len(raw) // 8}d", raw))
    answers = tuple(
        [
            Answer(now_us * 1000, offset_ns, given_back_ns, held_ns, leased)
            for now_us, offset_ns, given_back_ns, held_ns, leased in zip(*[iter(values)] * 5, strict=True)
        ]
    )
    return Reply(fits == 1, answers)
