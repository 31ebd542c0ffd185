"""The spool on real files: locks, limits, full disks, damage, and processes that are killed."""

import asyncio
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.billing.frames import Record, decode, encode
from services.billing.settings import BillingSettings
from services.billing.spool import Spool
from services.faults import Unavailable


@asynccontextmanager
async def opened(folder: Path, **settings: Any) -> AsyncIterator[Spool]:
    spool = Spool(folder, BillingSettings(**settings))
    await spool.open()
    try:
        yield spool
    finally:
        await spool.close()


async def drain(spool: Spool) -> list[bytes]:
    found = []
    while oldest := await spool.oldest():
        segment, data, end = oldest
        found += [item.payload for item in decode(data) if isinstance(item, Record)]
        spool.finish(segment, end, time.monotonic())
    return found


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.usage"))


@contextmanager
def disk_with_room_for(size: int) -> Iterator[None]:
    """Files cannot grow beyond `size` bytes: writes come back short, then fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_records_come_out_in_order_across_segments(tmp_path: Path) -> None:
    items = [b"%04d" % number for number in range(100)]
    async with opened(tmp_path, segment_bytes=200) as spool:
        for item in items:
            spool.append([item])
        assert len(files(tmp_path)) > 5
        assert await drain(spool) == items
        assert [path.stat().st_size for path in files(tmp_path)] == [0]
    assert not files(tmp_path)


async def test_what_was_appended_last_is_there_after_the_end(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        spool.append([b"late"])
    with pytest.raises(Unavailable, match="shutting_down"):
        spool.append([b"too late"])
    async with opened(tmp_path) as spool:
        assert await drain(spool) == [b"late"]


async def test_living_processes_leave_each_others_files_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as one, opened(tmp_path) as other:
        one.append([b"one"])
        other.append([b"other"])
        await one.adopt()
        assert await drain(one) == [b"one"]
        await other.close()
        await one.adopt()
        assert await drain(one) == [b"other"]


async def test_a_full_spool_refuses_until_it_is_drained(tmp_path: Path) -> None:
    async with opened(tmp_path, spool_bytes=1000, segment_bytes=400) as spool:
        with pytest.raises(Unavailable) as caught:
            for _ in range(100):
                spool.append([bytes(50)])
        assert caught.value.reason == "spool_full"
        assert sum(path.stat().st_size for path in files(tmp_path)) <= 1000
        assert len(await drain(spool)) == 1000 // len(encode(bytes(50)))
        spool.append([b"again"])


async def test_a_full_disk_refuses_and_leaves_no_half_record(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        spool.append([b"before"])
        size = files(tmp_path)[0].stat().st_size
        with disk_with_room_for(size + 20):
            with pytest.raises(Unavailable) as caught:
                spool.append([bytes(100)])
            assert caught.value.reason == "spool_unwritable"
            assert files(tmp_path)[0].stat().st_size == size
        spool.append([b"after"])
        assert await drain(spool) == [b"before", b"after"]


async def test_check_says_whether_a_record_could_be_kept(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool", spool_bytes=30) as spool:
        await spool.check()
        with disk_with_room_for(100), pytest.raises(Unavailable, match="spool_unwritable"):
            await spool.check()
        spool.append([bytes(18)])
        with pytest.raises(Unavailable, match="spool_full"):
            await spool.check()
        await drain(spool)
        await spool.check()
        (tmp_path / "spool").rename(tmp_path / "elsewhere")
        with pytest.raises(Unavailable, match="spool_unwritable"):
            await spool.check()
        (tmp_path / "elsewhere").rename(tmp_path / "spool")
    assert not list((tmp_path / "spool").iterdir())


async def test_syncing_while_files_come_and_go(tmp_path: Path) -> None:
    async with opened(tmp_path, segment_bytes=100, fsync_interval_ms=0) as spool:
        syncing = asyncio.create_task(spool.keep_synced())
        found = []
        for number in range(200):
            spool.append([b"%020d" % number])
            if number % 3 == 0:
                found += await drain(spool)
        found += await drain(spool)
        assert found == [b"%020d" % number for number in range(200)]
        assert not syncing.done()
        syncing.cancel()


async def test_after_a_failed_sync_records_go_to_a_fresh_file(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    async with opened(folder) as spool:
        spool.append([b"before"])
        folder.rename(tmp_path / "elsewhere")
        await spool.sync()
        (tmp_path / "elsewhere").rename(folder)
        spool.append([b"after"])
        assert len(files(folder)) == 2
        assert await drain(spool) == [b"before", b"after"]


async def test_a_file_that_others_cut_short_does_not_stop_the_rest(tmp_path: Path) -> None:
    async with opened(tmp_path, segment_bytes=30) as spool:
        for item in (b"one", b"two", b"three"):
            spool.append([item])
        os.truncate(files(tmp_path)[0], 20)
        assert await drain(spool) == [b"one", b"three"]


def test_acknowledged_records_survive_kill_9_at_any_moment(tmp_path: Path) -> None:
    seed = random.randrange(1_000_000)
    program = [sys.executable, "-m", "tests.services.billing.crashes", str(tmp_path), "40", str(seed)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    assert "none lost" in done.stdout
