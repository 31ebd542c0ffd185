"""Who watches hears everything in order, or that something was missed."""

import asyncio
from contextlib import aclosing

from modelplane.keys.v1.keys_pb2 import WatchResponse
from services.keys.watchers import Watchers

KEPT = WatchResponse(organization_id="org-1", key_id="key_0", revoked=True)


async def test_everything_in_order_after_what_there_was() -> None:
    watchers = Watchers(waiting=10, beat_s=10)
    async with aclosing(watchers.watch(lambda: [KEPT])) as stream:  # type: ignore[type-var]
        assert await anext(stream) == WatchResponse()
        changes = [WatchResponse(key_id=f"key_{number}") for number in range(5)]
        for change in changes:
            watchers.tell(change)
        assert await anext(stream) == KEPT
        assert [await anext(stream) for _ in changes] == changes


async def test_a_slow_watcher_is_told_that_it_missed_something_and_holds_up_nobody() -> None:
    watchers = Watchers(waiting=3, beat_s=10)
    async with (
        aclosing(watchers.watch(list)) as slow,  # type: ignore[type-var]
        aclosing(watchers.watch(list)) as quick,  # type: ignore[type-var]
    ):
        await anext(slow), await anext(quick)
        heard = []
        for number in range(4):
            watchers.tell(WatchResponse(key_id=f"key_{number}"))
            heard.append((await anext(quick)).key_id)
        assert heard == ["key_0", "key_1", "key_2", "key_3"]
        assert await anext(slow) == WatchResponse(all=True)
        watchers.tell(WatchResponse(key_id="key_4"))
        assert (await anext(slow)).key_id == "key_4"


async def test_a_beat_when_nothing_happens() -> None:
    watchers = Watchers(waiting=3, beat_s=0.01)
    async with asyncio.timeout(30), aclosing(watchers.watch(list)) as stream:  # type: ignore[type-var]
        assert [await anext(stream) for _ in range(3)] == [WatchResponse()] * 3
