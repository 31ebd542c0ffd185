"""What the service does as time goes by."""

from typing import Any

from modelplane.completions.v1 import completions_pb2 as pb
from services.completions.service import Completions
from services.completions.settings import CompletionsSettings
from services.completions.store import CompletionsStore
from services.storage import Database

OWNER: dict[str, Any] = {"organization_id": "org-1", "project_id": "proj-1"}
ANSWER = pb.Answer(status=200, content_type="application/json", body=b"{}")
DAY_S = 24 * 3600.0


class Clock:
    """Time that the test passes."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


def made(database: Database, clock: Clock) -> Completions:
    return Completions(CompletionsStore(database), CompletionsSettings(clean_rows=2), clock=clock)


async def claim(completions: Completions, fingerprint: bytes = b"one", key: str = "key") -> pb.ClaimResponse:
    request = pb.ClaimRequest(project_id="proj-1", key=key, fingerprint=fingerprint, lease_ms=60_000)
    return await completions.claim(request)


async def test_a_lease_ends(database: Database) -> None:
    clock = Clock()
    completions = made(database, clock)
    lost = await claim(completions)
    clock.now_s += 59
    assert (await claim(completions)).state == pb.CLAIM_STATE_RUNNING
    clock.now_s += 1
    again = await claim(completions)
    assert again.state == pb.CLAIM_STATE_CLAIMED
    # Whoever had lost the key comes too late.
    await completions.finish(pb.FinishRequest(token=lost.token, answer=ANSWER))
    assert (await claim(completions)).state == pb.CLAIM_STATE_RUNNING


async def test_an_answer_outlives_the_lease_and_expires(database: Database) -> None:
    clock = Clock()
    completions = made(database, clock)
    first = await claim(completions)
    await completions.finish(pb.FinishRequest(token=first.token, answer=ANSWER))
    clock.now_s += DAY_S - 1
    assert (await claim(completions)).answer == ANSWER
    clock.now_s += 1
    assert (await claim(completions, b"two")).state == pb.CLAIM_STATE_CLAIMED
    assert (await claim(completions, b"two")).state == pb.CLAIM_STATE_RUNNING


async def test_what_is_too_old_is_removed(database: Database) -> None:
    clock = Clock()
    completions = made(database, clock)
    for index in range(7):
        await claim(completions, key=f"{index}")
        created_at_ms = int((clock.now_s - index) * 1000)
        stored = pb.StoredCompletion(**OWNER, id=f"{index}", created_at_ms=created_at_ms, completion_json=b"{}")
        await completions.put(pb.PutRequest(completion=stored))
    clock.now_s += 30 * DAY_S - 1
    await completions.clean()
    left = await completions.list(pb.ListRequest(**OWNER, limit=20))
    assert [one.id for one in left.completions] == ["1", "0"]
    async with database.connection() as connection:
        found = await connection.execute("SELECT count(*) FROM idempotency_keys")
        assert await found.fetchone() == (0,)


async def test_a_key_in_use_is_not_removed(database: Database) -> None:
    clock = Clock()
    completions = made(database, clock)
    await claim(completions)
    await completions.clean()
    assert (await claim(completions)).state == pb.CLAIM_STATE_RUNNING
