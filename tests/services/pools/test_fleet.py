"""The platform's side of the driver, with a stand-in for the driver itself."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.pools.fleet import RayFleet
from services.pools.messages import Connected, Drain, Ended, Event, Ready, Start
from services.pools.sessions import members
from services.pools.settings import Settings

DRIVER = (sys.executable, "-m", "tests.fakes.ray_driver")


def start(replica_id: str, model: str = "m") -> Start:
    return Start(replica_id, {"MODELPLANE_CHAT_INFERENCE_MODEL": model}, 0.0, 0.0, "/dev/null")


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[RayFleet]:
    fleet = RayFleet(Settings(stop_timeout_ms=5000), tmp_path, DRIVER)
    yield fleet
    await fleet.close()


class Events:
    """What the fleet says, in order."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Event] = asyncio.Queue()

    def accept(self, event: Event) -> None:
        self._queue.put_nowait(event)

    async def next(self) -> Event:
        return await asyncio.wait_for(self._queue.get(), 30)


async def test_replicas_start_and_drain_and_nothing_is_left(fleet: RayFleet, tmp_path: Path) -> None:
    events = Events()
    await fleet.open(events.accept)
    fleet.send(start("a"))
    assert await events.next() == Connected(1)
    ready = await events.next()
    assert isinstance(ready, Ready)
    session = os.getsid(ready.pid)
    assert session != os.getsid(0) and os.getpgid(session) != os.getpgid(0)
    fleet.send(Drain("a"))
    assert await events.next() == Ended("a", "")
    assert members(session)
    [folder] = [Path((tmp_path / "ray-folder").read_text())]
    assert folder.is_dir()
    await fleet.close()
    assert members(session) == []
    assert not folder.exists()
    assert (tmp_path / "ray-token").stat().st_mode & 0o777 == 0o600


async def test_a_driver_that_dies_is_replaced_and_its_replicas_end(fleet: RayFleet) -> None:
    events = Events()
    await fleet.open(events.accept)
    fleet.send(start("a"))
    assert await events.next() == Connected(1)
    first = await events.next()
    assert isinstance(first, Ready)
    session = os.getsid(first.pid)
    fleet.send(start("b", "crash"))
    assert isinstance(await events.next(), Ready)
    for replica_id in "ab":
        ended = await events.next()
        assert isinstance(ended, Ended) and ended.replica_id == replica_id
        assert "the Ray driver ended" in ended.error
    assert members(session) == []
    fleet.send(start("c"))
    assert await events.next() == Connected(1)
    ready = await events.next()
    assert isinstance(ready, Ready) and ready.replica_id == "c"


async def test_closing_while_the_driver_starts(tmp_path: Path) -> None:
    fleet = RayFleet(Settings(stop_timeout_ms=60_000), tmp_path, (sys.executable, "-c", "import time; time.sleep(600)"))
    await fleet.open(lambda event: None)
    while not (tmp_path / "logs" / "ray.log").exists():
        await asyncio.sleep(0.01)
    async with asyncio.timeout(30):
        await fleet.close()
    assert not (tmp_path / "ray-folder").exists()
