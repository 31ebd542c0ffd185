"""The spool on a disk that is full, and on one that cannot be written: nothing is served that could not be recorded."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.billing.frames import Record, decode
from services.billing.service import serving
from services.billing.settings import BillingSettings
from services.billing.spool import RETRY_S, Spool
from services.faults import Unavailable
from services.storage import Database
from tests.services.billing.money import asking, furnish
from tests.services.billing.usages import recording, usage

DISK_BYTES = 64 * 1024


def mount(*arguments: str) -> bool:
    command = ["mount", *arguments]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or not mount("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)):
        pytest.skip("only root on Linux can mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


async def drain(spool: Spool) -> list[bytes]:
    found = []
    while oldest := await spool.oldest():
        segment, data, end = oldest
        items = list(decode(data))
        assert all(isinstance(item, Record) for item in items)
        found += [item.payload for item in items if isinstance(item, Record)]
        spool.finish(segment, end, time.monotonic())
    return found


def fill(path: Path) -> None:
    """Takes all that is left of a disk."""
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))


async def test_a_full_disk_refuses_before_serving_and_loses_nothing(disk: Path) -> None:
    spool = Spool(disk, BillingSettings(segment_bytes=10_000))
    await spool.open()
    kept = []
    with pytest.raises(Unavailable) as raised:
        for number in range(1000):
            spool.append([b"%04d" % number + bytes(300)])
            kept.append(number)
    assert raised.value.reason == "spool_unwritable"
    assert len(kept) > 100
    for ask in (spool.refuse_if_full, lambda: spool.checkpoint([("req_1", bytes(100))])):
        with pytest.raises(Unavailable, match="spool_unwritable"):
            ask()
    with pytest.raises(Unavailable, match="spool_unwritable"):
        await spool.check()
    assert [int(payload[:4]) for payload in await drain(spool)] == kept
    await asyncio.sleep(RETRY_S)
    spool.refuse_if_full()
    spool.append([b"after"])
    assert await drain(spool) == [b"after"]
    await spool.close()


async def test_a_disk_that_others_have_filled_is_noticed_before_a_request_is_served(
    disk: Path, database: Database, database_url: str
) -> None:
    furnish(database_url)
    async with serving(disk / "spool", database, BillingSettings()) as billing:
        await billing.hold(asking())
        fill(disk / "filled")
        await asyncio.sleep(RETRY_S)
        # Nothing was written since: the disk itself is asked.
        with pytest.raises(Unavailable, match="spool_unwritable"):
            await billing.hold(asking())
        (disk / "filled").unlink()
        await asyncio.sleep(RETRY_S)
        await billing.hold(asking())
        await billing.record(recording(usage()))


async def test_a_read_only_spool_serves_nothing(disk: Path, database: Database, database_url: str) -> None:
    furnish(database_url)
    (disk / "spool").mkdir()
    assert mount("-o", "remount,ro", str(disk))
    async with serving(disk / "spool", database, BillingSettings()) as billing:
        for ask in (lambda: billing.hold(asking()), billing.ping, lambda: billing.record(recording(usage()))):
            with pytest.raises(Unavailable, match="spool_unwritable"):
                await ask()
        assert mount("-o", "remount,rw", str(disk))
        await asyncio.sleep(RETRY_S)
        await billing.hold(asking())


async def test_asking_costs_nothing_while_records_are_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path, BillingSettings())
    await spool.open()
    spool.append([b"a record"])
    tmp_path.rename(tmp_path.with_name("elsewhere"))
    spool.refuse_if_full()
    tmp_path.with_name("elsewhere").rename(tmp_path)
    await spool.close()


async def test_what_a_crash_left_of_a_file_that_was_begun_anew_goes_away(tmp_path: Path) -> None:
    (tmp_path / "12345678-abcdefab.open.new").write_bytes(b"half")
    spool = Spool(tmp_path, BillingSettings())
    await spool.open()
    await spool.close()
    assert not list(tmp_path.iterdir())
