"""Killed at random moments under mixed load, the platform loses no usage and bills nothing twice.

`make faults` runs many rounds; the tests of every change run a few. MODELPLANE_FAULTS_SEED repeats a run's choices.
"""

import asyncio
import json
import os
import random
import tempfile
from pathlib import Path

import psycopg
import pytest

from tests.faults.fleet import TOKENS, Fleet, running_fleet
from tests.faults.load import Load

ROUNDS = int(os.environ.get("MODELPLANE_FAULTS_ROUNDS", "4"))
SEED = int(os.environ.get("MODELPLANE_FAULTS_SEED", str(random.randrange(1_000_000))))
VICTIMS = ("near", "far", "money", "replica-1", "replica-2", "postgres", "valkey", "control")
CLIENTS = 8
# A checkpoint every 250 ms, a token every 10 ms: the most that a crash makes free, and as much again for a busy
# machine.
UNTOLD = 50

pytestmark = pytest.mark.timeout(600 + 20 * ROUNDS)


async def test_nothing_is_lost_and_nothing_is_billed_twice(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    print(f"MODELPLANE_FAULTS_SEED={SEED}")
    with tempfile.TemporaryDirectory(prefix="modelplane-faults-") as home:
        async with running_fleet(tmp_path, Path(home)) as fleet:
            key, limited = await asyncio.to_thread(keys, fleet)
            load = Load(fleet.urls, key, limited, chance)
            running = asyncio.create_task(load.run(CLIENTS))
            for number in range(ROUNDS):
                await asyncio.sleep(chance.uniform(0.5, 2))
                # Every one is killed before any is killed again, and sometimes two at once.
                victims = {VICTIMS[number % len(VICTIMS)], *chance.sample(VICTIMS, chance.randrange(2))}
                await asyncio.gather(*(fleet.kill(victim, chance.uniform(0.1, 1)) for victim in victims))
                await fleet.ready()
            await asyncio.sleep(1)
            load.stop()
            await running
            await settle(fleet)
            audit = await asyncio.to_thread(fleet.command, "audit")
            print(audit.stdout, audit.stderr, load.statuses)
            assert audit.returncode == 0
            compare(fleet, load)


def keys(fleet: Fleet) -> tuple[str, str]:
    """One key that is not limited, and one of a project with 2 requests per minute."""

    def made(*arguments: str) -> dict[str, str]:
        done = fleet.command(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, str] = json.loads(done.stdout)
        return found

    first = made("keys", "create")["secret"]
    project = made("projects", "create", "limited")["id"]
    limited = made("keys", "create", "--project", project)["secret"]
    assert fleet.command("limits", "set", "scripted", "rpm=2", "--project", project).returncode == 0
    return first, limited


async def settle(fleet: Fleet) -> None:
    """Whatever is open is ended: gateways and billing stop as they should, and billing comes back to drain."""
    for name in ("far", "near", "money", "replica-1", "replica-2"):
        assert await asyncio.to_thread(fleet.members[name].stop) == 0, name
    fleet.members["money"].start()
    await fleet.drained()


def compare(fleet: Fleet, load: Load) -> None:
    """What clients got is billed, and no more than was made."""
    with psycopg.connect(fleet.variables["MODELPLANE_DATABASE_URL"]) as connection:
        rows = connection.execute("SELECT request_id, output_tokens, nanodollars, outcome FROM usage_records")
        billed = {request_id: (tokens, nanodollars) for request_id, tokens, nanodollars, _ in rows}
    assert len(load.seen) > 10 * ROUNDS, load.statuses
    assert set(load.statuses) <= {200, 400, 429, 503, 504}, load.statuses
    for seen in load.seen:
        assert seen.request_id in billed, f"{seen} is free"
        tokens, nanodollars = billed[seen.request_id]
        assert nanodollars > 0, seen
        assert seen.pieces - UNTOLD <= tokens <= TOKENS, (seen, tokens)
        if seen.output_tokens is not None:
            assert tokens == seen.output_tokens, (seen, tokens)
