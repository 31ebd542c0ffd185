"""A crash makes no running request free, and no request that ended is billed by its checkpoint."""

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from modelplane.usage.v1.usage_pb2 import Usage
from services.billing import checkpoints
from services.billing.frames import Record, decode, encode
from services.billing.settings import BillingSettings
from services.billing.spool import Spool
from services.faults import Unavailable
from tests.services.billing.usages import usage


async def opened(folder: Path, **settings: Any) -> Spool:
    spool = Spool(folder, BillingSettings(**{"orphan_s": 0, **settings}))
    await spool.open()
    return spool


async def drain(spool: Spool) -> list[tuple[str, int]]:
    """Request ids and output tokens, in the order in which the database gets them."""
    found = []
    while oldest := await spool.oldest():
        segment, data, end = oldest
        records = [Usage.FromString(item.payload) for item in decode(data) if isinstance(item, Record)]
        found += [(record.request_id, record.output_tokens) for record in records]
        spool.finish(segment, end, time.monotonic())
    return found


def tell(spool: Spool, request_id: str, output_tokens: int = 1) -> None:
    spool.checkpoint([(request_id, usage(request_id, output_tokens).SerializeToString())])


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_what_ran_when_a_process_died_is_billed_after_what_it_recorded(tmp_path: Path) -> None:
    died = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "tests.services.billing.dying", str(tmp_path)], check=False
    )
    assert died.returncode == -signal.SIGKILL
    spool = await opened(tmp_path)
    # Its records first, and only when they are in the database what it left open.
    assert await drain(spool) == [("recorded", 20), ("recorded-later", 30)]
    await spool.adopt()
    # What was recorded the database knows already; what was released is not there.
    assert await drain(spool) == [("recorded", 1), ("running", 5), ("recorded-later", 9)]
    await spool.close()
    assert left(tmp_path) == []


async def test_a_living_process_keeps_its_own(tmp_path: Path) -> None:
    first, second = await opened(tmp_path), await opened(tmp_path)
    tell(first, "a")
    await second.adopt()
    assert await drain(second) == []
    first.recorded("a")
    await first.close()
    await second.close()
    assert left(tmp_path) == []


async def test_what_is_open_at_the_end_is_billed_by_the_next(tmp_path: Path) -> None:
    first = await opened(tmp_path)
    tell(first, "a", 3)
    await first.close()
    second = await opened(tmp_path)
    assert await drain(second) == [("a", 3)]
    await second.close()
    assert left(tmp_path) == []


async def test_a_request_that_nobody_ends_is_recorded_in_time(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    tell(spool, "old", 4)
    await asyncio.sleep(0.05)
    tell(spool, "young")
    spool.record_overdue(0.04)
    assert await drain(spool) == [("old", 4)]
    spool.record_overdue(0.04)
    assert await drain(spool) == []
    spool.recorded("young")
    await spool.close()


async def test_the_file_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "COMPACT_BYTES", 10_000)
    spool = await opened(tmp_path)
    tell(spool, "long", 1)
    for number in range(500):
        tell(spool, f"short-{number}")
        spool.recorded(f"short-{number}")
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 12_000
    tell(spool, "long", 2)
    await spool.close()
    after = await opened(tmp_path)
    found = await drain(after)
    assert ("long", 2) in found
    assert len(found) < 100
    await after.close()


async def test_a_folder_that_takes_nothing_refuses_and_recovers(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    spool = await opened(folder)
    spool.refuse_if_full()
    # A folder that is gone refuses root too, which a read-only one does not.
    folder.rmdir()
    with pytest.raises(Unavailable) as raised:
        tell(spool, "a")
    assert raised.value.reason == "spool_unwritable"
    with pytest.raises(Unavailable):
        spool.refuse_if_full()
    folder.mkdir()
    await asyncio.sleep(1.1)
    spool.refuse_if_full()
    tell(spool, "a")
    spool.recorded("a")
    await spool.close()


async def test_a_full_spool_takes_no_checkpoint(tmp_path: Path) -> None:
    payload = usage("kept").SerializeToString()
    spool = await opened(tmp_path, spool_bytes=len(encode(payload)))
    spool.refuse_if_full()
    spool.append([payload])
    for ask in (spool.refuse_if_full, lambda: tell(spool, "a")):
        with pytest.raises(Unavailable) as raised:
            ask()
        assert raised.value.reason == "spool_full"
    assert await drain(spool) == [("kept", 7)]
    spool.refuse_if_full()
    await spool.close()


async def test_a_request_that_goes_on_elsewhere_is_not_billed_by_what_a_dead_process_knew(tmp_path: Path) -> None:
    """Its gateway lives, and tells the process that takes the dead one's place."""
    first = await opened(tmp_path)
    for request_id in ("runs", "ended", "lost"):
        tell(first, request_id, 3)
    await first.close()
    second = Spool(tmp_path, BillingSettings(orphan_s=0.2))
    await second.open()
    assert await drain(second) == []
    tell(second, "runs", 9)
    second.append([usage("ended", 12).SerializeToString()])
    await asyncio.sleep(0.25)
    # Not before what was recorded since is in the database.
    await second.adopt()
    assert await drain(second) == [("ended", 12)]
    await second.adopt()
    assert await drain(second) == [("ended", 3), ("lost", 3)]
    second.recorded("runs")
    await second.close()
    assert left(tmp_path) == []
