"""Kills processes that append to a spool, again and again.

Run it as `python -m tests.services.billing.crashes FOLDER ROUNDS SEED`: a program of its own, because it forks,
which costs milliseconds where a new interpreter costs half a second. It exits with 0 when after every kill all
acknowledged records were there and nothing but a torn end was wrong.
"""

import asyncio
import os
import random
import signal
import sys
import time
from pathlib import Path
from uuid import uuid4

from services.billing.frames import Damage, Record, decode
from services.billing.settings import BillingSettings
from services.billing.spool import Spool

SETTINGS = BillingSettings(segment_bytes=20_000)
ID_BYTES = 32


async def append_for_ever(folder: Path, acknowledge: int) -> None:
    spool = Spool(folder, SETTINGS)
    await spool.open()

    async def one_client() -> None:
        while True:
            ids = [uuid4().hex for _ in range(random.randint(1, 3))]
            spool.append([one.encode() + bytes(random.randint(0, 400)) for one in ids])
            os.write(acknowledge, "".join(ids).encode())
            await asyncio.sleep(0)

    await asyncio.gather(spool.keep_synced(), *(one_client() for _ in range(8)))


async def recover(folder: Path) -> set[str]:
    """What a process that comes next finds, and drains."""
    spool = Spool(folder, SETTINGS)
    await spool.open()
    found: set[str] = set()
    while oldest := await spool.oldest():
        segment, data, end = oldest
        for item in decode(data):
            if isinstance(item, Record):
                found.add(item.payload[:ID_BYTES].decode())
            assert not isinstance(item, Damage) or item.torn
        spool.finish(segment, end, time.monotonic())
    await spool.close()
    assert not list(folder.iterdir()), list(folder.iterdir())
    return found


def one_round(folder: Path, moment_s: float) -> int:
    """One life and death; the number of records that were acknowledged."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        asyncio.run(append_for_ever(folder, writing))
    os.close(writing)
    acknowledged = os.read(reading, ID_BYTES)
    time.sleep(moment_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(reading, 1 << 20):
        acknowledged += more
    os.close(reading)
    ids = {acknowledged[at : at + ID_BYTES].decode() for at in range(0, len(acknowledged), ID_BYTES)}
    lost = {one for one in ids if len(one) == ID_BYTES} - asyncio.run(recover(folder))
    assert not lost, f"{len(lost)} of {len(ids)} acknowledged records are lost"
    return len(ids)


def main() -> None:
    folder, rounds, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    chance = random.Random(seed)
    total = sum(one_round(folder, chance.uniform(0, 0.03)) for _ in range(rounds))
    print(f"{total} records acknowledged in {rounds} lives, none lost")


if __name__ == "__main__":
    main()
