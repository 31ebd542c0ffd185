"""What is remembered, for how long, and that nothing outlives being forgotten. Time is virtual."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from modelplane.auth.v1.auth_pb2 import ModelPolicy, Principal
from services.auth.cache import Expiring, KeyCache, Known, known, weight
from services.auth.guesses import Budget, Guesses
from services.faults import Unavailable

KEY, OTHER, UNKNOWN = b"key", b"other", b"unknown"
TTL_S, UNKNOWN_TTL_S = 60.0, 5.0


class Keys:
    """A database of keys that answers when it is told to, and counts its reads."""

    def __init__(self) -> None:
        self.reads: list[bytes] = []
        self.rows = {KEY, OTHER}
        self.open = asyncio.Event()
        self.open.set()
        self.down = False

    async def load(self, digest: bytes) -> Principal | None:
        self.reads.append(digest)
        found = digest in self.rows
        await self.open.wait()
        if self.down:
            raise Unavailable("database_unavailable", "down")
        name = digest.decode()
        owner = "org-1" if digest == KEY else "org-2"
        return Principal(key_id=name, organization_id=owner, project_id=f"proj-{name}") if found else None


class Bench:
    def __init__(self, size: int = 10) -> None:
        self.now_s = 0.0
        self.keys = Keys()
        self.unknown: Expiring[None] = Expiring(size, UNKNOWN_TTL_S)
        self.cache = KeyCache(
            self.keys.load,
            size=size,
            ttl_s=TTL_S,
            unknown=self.unknown,
            guesses=Guesses(
                lambda: Budget(per_s=10, burst=20, clock=lambda: self.now_s),
                Budget(per_s=50, burst=100, clock=lambda: self.now_s),
            ),
            clock=lambda: self.now_s,
        )

    async def find(self, digest: bytes, source: str = "192.0.2.1") -> Known | None:
        return await self.cache.find(digest, source)


async def test_a_known_key_is_read_once_until_it_expires() -> None:
    bench = Bench()
    for _ in range(3):
        found = await bench.find(KEY)
        assert found is not None and found.answer.principal.key_id == found.key_id == "key"
    assert bench.cache.recall(KEY) is not None
    assert bench.keys.reads == [KEY]
    bench.now_s = TTL_S
    assert bench.cache.recall(KEY) is None
    await bench.find(KEY)
    assert bench.keys.reads == [KEY, KEY]


async def test_an_unknown_key_is_refused_from_memory_for_a_while() -> None:
    bench = Bench()
    assert [await bench.find(UNKNOWN) for _ in range(3)] == [None, None, None]
    assert bench.keys.reads == [UNKNOWN]
    bench.now_s = UNKNOWN_TTL_S
    await bench.find(UNKNOWN)
    assert bench.keys.reads == [UNKNOWN, UNKNOWN]


async def test_guessing_does_not_push_out_good_keys() -> None:
    bench = Bench(size=4)
    await bench.find(KEY)
    for number in range(20):
        await bench.find(f"guess {number}".encode())
    assert bench.cache.recall(KEY) is not None
    assert len(bench.unknown) == 4


async def test_the_least_recently_used_key_gives_way() -> None:
    bench = Bench(size=2)
    bench.keys.rows.add(b"third")
    for digest in (KEY, OTHER, KEY, b"third"):
        await bench.find(digest)
    assert bench.cache.recall(KEY) is not None
    assert bench.cache.recall(OTHER) is None


async def test_many_who_ask_together_share_one_read() -> None:
    bench = Bench()
    bench.keys.open.clear()
    asking = [asyncio.ensure_future(bench.find(KEY)) for _ in range(50)]
    await asyncio.sleep(0)
    asking[0].cancel()  # the one that began the read gives up
    await asyncio.sleep(0)
    bench.keys.open.set()
    answers = await asyncio.gather(*asking[1:])
    assert all(answer is not None for answer in answers)
    assert bench.keys.reads == [KEY]


async def test_an_outage_reaches_everyone_and_is_not_remembered() -> None:
    bench = Bench()
    bench.keys.down = True
    for answer in await asyncio.gather(*(bench.find(KEY) for _ in range(3)), return_exceptions=True):
        assert isinstance(answer, Unavailable)
    bench.keys.down = False
    assert await bench.find(KEY) is not None


CHANGES: dict[str, Callable[[KeyCache], None]] = {
    "everything": lambda cache: cache.clear(),
    "its organization": lambda cache: cache.forget("org-1"),
    "its project": lambda cache: cache.forget("proj-key"),
    "the key": lambda cache: cache.forget("key"),
    "revoked": lambda cache: cache.revoke("org-1", "", "key"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_a_read_that_was_overtaken_by_a_change_is_not_believed(change: Callable[[KeyCache], None]) -> None:
    bench = Bench()
    bench.keys.open.clear()
    before = asyncio.ensure_future(bench.find(KEY))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert bench.keys.reads == [KEY]
    bench.keys.rows.remove(KEY)
    change(bench.cache)
    after = asyncio.ensure_future(bench.find(KEY))
    await asyncio.sleep(0)
    bench.keys.open.set()
    await before  # it asked while the key was good
    assert await after is None
    assert bench.cache.recall(KEY) is None


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_a_change_concerns_its_own_keys(change: Callable[[KeyCache], None]) -> None:
    bench = Bench()
    await bench.find(KEY)
    await bench.find(OTHER)
    change(bench.cache)
    assert bench.cache.recall(KEY) is None
    assert (bench.cache.recall(OTHER) is None) == (change is CHANGES["everything"])


async def test_a_revoked_key_is_refused_whatever_is_read() -> None:
    bench = Bench()
    await bench.find(KEY)
    bench.cache.revoke("org-1", "", "key")
    bench.keys.down = True
    assert await bench.find(KEY) is None
    bench.keys.down = False
    bench.cache.clear()
    assert await bench.find(KEY) is None
    bench.cache.revoke("org-2", "proj-late", "late")
    bench.keys.rows.add(b"late")
    assert await bench.find(b"late") is None


async def test_nobody_revokes_the_key_of_another() -> None:
    bench = Bench()
    for down in (False, True):
        bench.keys.down = down
        bench.cache.revoke("org-1", "", "other")
        bench.cache.revoke("org-2", "proj-key", "other")
        assert await bench.find(OTHER) is not None
    bench.cache.revoke("org-2", "proj-other", "other")
    assert await bench.find(OTHER) is None


async def test_too_many_unknown_keys_are_not_looked_up() -> None:
    bench = Bench()
    await bench.find(KEY)
    for number in range(20):
        assert await bench.find(f"guess {number}".encode()) is None
    with pytest.raises(Unavailable) as caught:
        await bench.find(b"guess")
    assert caught.value.retry_after_ms == 1000
    assert bench.cache.recall(KEY) is not None
    bench.now_s = 0.15
    assert await bench.find(OTHER) is not None
    assert len(bench.keys.reads) == 22


async def test_guesses_made_together_are_bounded_too() -> None:
    bench = Bench()
    bench.keys.open.clear()
    guesses = [asyncio.create_task(bench.find(f"guess {number}".encode())) for number in range(100)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(bench.keys.reads) == 20
    bench.keys.open.set()
    outcomes = await asyncio.gather(*guesses, return_exceptions=True)
    assert outcomes.count(None) == 20 and sum(isinstance(outcome, Unavailable) for outcome in outcomes) == 80


async def test_guessing_does_not_keep_others_from_keys_that_were_never_seen() -> None:
    bench = Bench()
    for number in range(21):
        with suppress(Unavailable):
            await bench.find(f"guess {number}".encode())
    with pytest.raises(Unavailable):
        await bench.find(KEY)
    assert await bench.find(KEY, "192.0.2.2") is not None


async def test_many_who_guess_together_are_bounded_too() -> None:
    bench = Bench(size=1000)
    outcomes: list[object] = []
    for number in range(200):
        guess = bench.find(f"guess {number}".encode(), f"192.0.2.{number}")
        outcomes += await asyncio.gather(guess, return_exceptions=True)
    assert outcomes[:100] == [None] * 100
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes[100:])


async def test_a_key_of_large_policies_takes_the_room_of_many() -> None:
    def named(count: int, characters: int) -> Principal:
        return Principal(key_id="key", models=ModelPolicy(models=["m" * characters] * count))

    assert weight(known(named(3, 20))) == 1
    assert weight(known(named(1000, 1))) > 30
    # As measured: about 300 kB.
    assert 150 < weight(known(named(1000, 256))) < 200
    values: Expiring[int] = Expiring(10, TTL_S, weigh=lambda value: value)
    for number in range(20):
        values.put(bytes([number]), 3, 0)
    assert len(values) == 3
    values.put(b"heavy", 8, 0)
    assert len(values) == 1
    values.put(b"too heavy", 11, 0)
    assert len(values) == 1 and values.get(b"too heavy", 0) == 11
    values.put(b"light", 1, 0)
    values.put(b"light", 2, 0)
    assert len(values) == 1
    values.put(b"rest", 8, 0)
    assert len(values) == 2
    values.clear()
    values.put(b"all", 10, 0)
    assert len(values) == 1


async def test_guessing_does_not_keep_good_keys_from_being_read_again() -> None:
    bench = Bench()
    await bench.find(KEY)
    for number in range(20):
        await bench.find(f"guess {number}".encode())
    for forget in (bench.cache.clear, lambda: bench.cache.forget("org-1")):
        forget()
        assert await bench.find(KEY) is not None
    bench.keys.rows.remove(KEY)
    bench.cache.clear()
    assert await bench.find(KEY) is None
    bench.cache.clear()
    with pytest.raises(Unavailable):  # it is as good as a guess by now
        await bench.find(KEY)


async def test_only_unknown_keys_use_up_the_budget() -> None:
    bench = Bench(size=100)
    good = [f"good {number}".encode() for number in range(60)]
    bench.keys.rows |= set(good)
    bench.keys.down = True
    for digest in good:
        with pytest.raises(Unavailable, match="down"):
            await bench.find(digest)
    bench.keys.down = False
    for digest in good:
        assert await bench.find(digest) is not None


async def test_nothing_is_left_of_what_was_forgotten() -> None:
    bench = Bench(size=5)
    bench.keys.rows |= {f"good {number}".encode() for number in range(50)}
    for number in range(50):
        await bench.find(f"good {number}".encode())
    assert sum(len(digests) for digests in bench.cache._digests.values()) == 15
    bench.cache.forget("org-2")
    assert bench.cache._digests == {}
