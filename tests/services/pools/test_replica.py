"""A replica without a driver, in a process of its own as Ray gives it one."""

import asyncio
import sys
from pathlib import Path

import msgspec
import pytest

from services.catalog import ModelSpec
from services.pools.messages import Start

# Prints what `follow` said, as often as its arguments ask for it, and then waits to be ended by what it made.
PROGRAM = """
import asyncio, os, sys
import msgspec
from services.pools import replica
from services.pools.messages import Start

async def main():
    start, follows, replica.UNCLAIMED_S = msgspec.json.decode(sys.argv[1], type=Start), int(sys.argv[2]), 1.0
    out = os.fdopen(os.dup(1), "w", buffering=1)
    made = replica.Replica(start, None, "", "127.0.0.1", float(sys.argv[3]))
    heard, ended = 0, False
    for _ in range(follows):
        said, ended = await made.follow(heard)
        heard += len(said)
        print(*(type(status).__name__ for status in said), ended, file=out)
        if any(type(status).__name__ == "Ready" for status in said):
            again, _ = await made.follow(0)
            assert len(again) >= heard
            break
    print((await made.describe()).generation, file=out)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def run(home: Path, follows: int, abandoned_after_s: float) -> tuple[int, list[str]]:
    spec = ModelSpec(name="m", engine="scripted")
    variables = {
        "MODELPLANE_HOME": str(home),
        "MODELPLANE_CHAT_INFERENCE_SPEC": msgspec.json.encode(spec).decode(),
        "MODELPLANE_ROUTER_ADDRESS": "127.0.0.1:1",
        "MODELPLANE_BILLING_ADDRESS": "127.0.0.1:1",
    }
    start = Start("m-1", variables, 0.0, 0.0, "logs/m.log", generation="g")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, msgspec.json.encode(start).decode(), str(follows), str(abandoned_after_s)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 50)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode().splitlines()


@pytest.mark.timeout(120)
async def test_it_goes_by_itself_when_nobody_asks_for_its_news(tmp_path: Path) -> None:
    unclaimed, abandoned = await asyncio.gather(run(tmp_path / "a", 0, 0.0), run(tmp_path / "b", 20, 1.0))
    # Made for a driver that is gone: it never starts.
    assert unclaimed == (0, ["g"])
    status, lines = abandoned
    assert status == 0 and any("Ready" in line for line in lines) and lines[-1] == "g"
    assert "drain" not in (tmp_path / "a" / "logs" / "m.log").read_text()
    assert '"serving"' in (tmp_path / "b" / "logs" / "m.log").read_text()
