"""CompletionsService, over both wirings; and the fake that other tests have in its place."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelplane.completions.v1 import completions_pb2 as pb
from modelplane.completions.v1.completions_api import CompletionsService
from services.completions.service import serving
from services.completions.settings import CompletionsSettings
from services.completions.store import CompletionsStore
from services.faults import Fault, InvalidRequest, NotFound
from services.storage import Database
from tests.contract.conftest import Wire
from tests.fakes.completions import FakeCompletions

MINE: dict[str, Any] = {"organization_id": "org-1", "project_id": "proj-1"}
OTHERS: tuple[dict[str, Any], ...] = (
    {"organization_id": "org-1", "project_id": "proj-2"},
    {"organization_id": "org-2", "project_id": "proj-1"},
    {"organization_id": "", "project_id": ""},
)
# What these tests store is of 1970, and the service that they meet removes what is too old.
RETENTION_DAYS = 100_000.0


@pytest.fixture(params=["service", "fake"])
async def completions(
    request: pytest.FixtureRequest, database: Database, wire: Wire
) -> AsyncIterator[CompletionsService]:
    if request.param == "fake":
        yield await wire(CompletionsService, FakeCompletions())
        return
    async with serving(CompletionsStore(database), CompletionsSettings(retention_days=RETENTION_DAYS)) as service:
        yield await wire(CompletionsService, service)


@pytest.fixture
async def real(database: Database, wire: Wire) -> AsyncIterator[CompletionsService]:
    small = CompletionsSettings(max_object_bytes=100, max_page_bytes=100, retention_days=RETENTION_DAYS)
    async with serving(CompletionsStore(database), small) as service:
        yield await wire(CompletionsService, service)


def stored(
    name: str, created_at_ms: int = 1, model: str = "m", metadata: dict[str, str] | None = None
) -> pb.StoredCompletion:
    return pb.StoredCompletion(
        **MINE,
        id=name,
        model=model,
        created_at_ms=created_at_ms,
        metadata=metadata or {},
        request_messages_json=b'[{"role":"user","content":"\\u0000 \xc3\xa9"}]',
        completion_json=b'{"id":"%b"}' % name.encode(),
    )


async def put(completions: CompletionsService, *those: pb.StoredCompletion) -> None:
    for one in those:
        await completions.put(pb.PutRequest(completion=one))


async def listed(completions: CompletionsService, limit: int = 20, **filters: Any) -> tuple[list[str], bool]:
    request = pb.ListRequest(**MINE, limit=limit, **filters)
    page = await completions.list(request)
    return [one.id for one in page.completions], page.has_more


async def test_what_is_put_is_found_as_it_was(completions: CompletionsService) -> None:
    one = stored("a", 5, metadata={"k": "v", "nul \0": "\0 'quoted\" é"})
    await put(completions, one)
    assert (await completions.get(pb.GetRequest(**MINE, id="a"))).completion == one


async def test_an_id_is_put_once(completions: CompletionsService) -> None:
    await put(completions, stored("a", 1), stored("a", 2))
    assert (await completions.get(pb.GetRequest(**MINE, id="a"))).completion.created_at_ms == 1


@pytest.mark.parametrize("name", ["none", "", "a\0", "'; --"])
async def test_what_is_not_there(completions: CompletionsService, name: str) -> None:
    await put(completions, stored("a"))
    await assert_nothing_there(completions, MINE, name)


async def test_what_is_of_others_is_not_there(completions: CompletionsService) -> None:
    one = stored("a", metadata={"k": "v"})
    await put(completions, one)
    for owner in OTHERS:
        await assert_nothing_there(completions, owner, "a")
        assert not (await completions.list(pb.ListRequest(**owner, limit=20))).completions
    assert (await completions.get(pb.GetRequest(**MINE, id="a"))).completion == one


async def assert_nothing_there(completions: CompletionsService, owner: dict[str, Any], name: str) -> None:
    calls = [
        completions.get(pb.GetRequest(**owner, id=name)),
        completions.update_metadata(pb.UpdateMetadataRequest(**owner, id=name, metadata={"x": "y"})),
        completions.delete(pb.DeleteRequest(**owner, id=name)),
    ]
    if name:
        calls.append(completions.list(pb.ListRequest(**owner, limit=20, after=name)))
    for call in calls:
        with pytest.raises(NotFound) as caught:
            await call
        assert caught.value.reason == "completion_not_found"
        assert caught.value.message == f"No stored chat completion found with id '{name}'."


async def test_pages_in_both_orders(completions: CompletionsService) -> None:
    await put(completions, stored("c", 1), stored("a", 2), stored("b", 2), stored("d", 3))
    assert await listed(completions) == (["c", "a", "b", "d"], False)
    assert await listed(completions, 3) == (["c", "a", "b"], True)
    assert await listed(completions, 2, after="a") == (["b", "d"], False)
    assert await listed(completions, after="d") == ([], False)
    assert await listed(completions, 2, descending=True) == (["d", "b"], True)
    assert await listed(completions, 2, descending=True, after="b") == (["a", "c"], False)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(times=st.lists(st.integers(1, 3), max_size=7), limit=st.integers(1, 4), descending=st.booleans())
async def test_cursors_lead_to_each_completion_once(
    completions: CompletionsService, times: list[int], limit: int, descending: bool
) -> None:
    project = uuid4().hex
    for index, created_at_ms in enumerate(times):
        one = stored(f"{project}-{index}", created_at_ms)
        one.project_id = project
        await put(completions, one)
    seen: list[str] = []
    more = True
    while more:
        request = pb.ListRequest(organization_id="org-1", project_id=project, limit=limit, descending=descending)
        request.after = seen[-1] if seen else ""
        page = await completions.list(request)
        assert len(page.completions) == min(limit, len(times) - len(seen))
        seen += [one.id for one in page.completions]
        more = page.has_more
    # Of those created at once, the ids decide.
    order = sorted(range(len(times)), key=lambda index: (times[index], index), reverse=descending)
    assert seen == [f"{project}-{index}" for index in order]


async def test_a_list_has_no_messages(completions: CompletionsService) -> None:
    one = stored("a", metadata={"k": "v"})
    await put(completions, one)
    (found,) = (await completions.list(pb.ListRequest(**MINE, limit=1))).completions
    one.ClearField("request_messages_json")
    assert found == one


async def test_filters(completions: CompletionsService) -> None:
    await put(
        completions,
        stored("a", 1, "x", {"k": "v"}),
        stored("b", 2, "y", {"k": "v", "l": "\0"}),
        stored("c", 3, "y", {"k": "w", "v": "k"}),
    )
    assert await listed(completions, model="y") == (["b", "c"], False)
    assert await listed(completions, model="y\0") == ([], False)
    assert await listed(completions, metadata={"k": "v"}) == (["a", "b"], False)
    assert await listed(completions, metadata={"k": "v", "l": "\0"}) == (["b"], False)
    assert await listed(completions, metadata={"k": "v"}, model="y", after="a") == (["b"], False)
    assert await listed(completions, metadata={"k": "k"}) == ([], False)


async def test_metadata_is_replaced(completions: CompletionsService) -> None:
    await put(completions, stored("a", metadata={"k": "v"}), stored("b"))
    request = pb.UpdateMetadataRequest(**MINE, id="a", metadata={"l": "w"})
    updated = (await completions.update_metadata(request)).completion
    assert updated == stored("a", metadata={"l": "w"})
    assert await listed(completions, metadata={"l": "w"}) == (["a"], False)
    assert await listed(completions, metadata={"k": "v"}) == ([], False)


async def test_deleted_is_gone(completions: CompletionsService) -> None:
    await put(completions, stored("a"), stored("b"))
    await completions.delete(pb.DeleteRequest(**MINE, id="a"))
    await assert_nothing_there(completions, MINE, "a")
    assert await listed(completions) == (["b"], False)


# ----------------------------------------------------------------------------------------------------- bounds


async def test_a_large_completion_is_refused(real: CompletionsService) -> None:
    for part in ("request_messages_json", "completion_json"):
        one = pb.StoredCompletion(**MINE, id="a", **{part: b"x" * 101})  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest) as caught:
            await real.put(pb.PutRequest(completion=one))
        assert caught.value.reason == "object_too_large"
    assert await listed(real) == ([], False)


async def test_a_page_of_large_completions_ends_early(real: CompletionsService) -> None:
    for index in range(3):
        one = pb.StoredCompletion(**MINE, id=f"{index}", created_at_ms=index, completion_json=b"x" * 60)
        await put(real, one)
    assert await listed(real) == (["0", "1"], True)
    assert await listed(real, after="1") == (["2"], False)


@pytest.mark.parametrize("limit", [0, -1, 101])
async def test_a_page_has_a_limit(real: CompletionsService, limit: int) -> None:
    with pytest.raises(InvalidRequest):
        await listed(real, limit)


@pytest.mark.parametrize("name", ["", "a\0"])
async def test_an_id_that_cannot_be(real: CompletionsService, name: str) -> None:
    with pytest.raises(InvalidRequest):
        await put(real, stored(name))


# --------------------------------------------------------------------------------------------------- idempotency

ANSWER = pb.Answer(status=200, content_type="application/json", body=b'{"nul":"\0"}')


async def claim(
    completions: CompletionsService, key: str = "key", print_: bytes = b"\0one", project: str = "proj-1"
) -> pb.ClaimResponse:
    request = pb.ClaimRequest(project_id=project, key=key, fingerprint=print_, lease_ms=60_000)
    return await completions.claim(request)


async def test_the_first_claim_runs_and_the_next_waits_for_its_answer(completions: CompletionsService) -> None:
    first = await claim(completions)
    assert first.state == pb.CLAIM_STATE_CLAIMED and first.token
    assert await claim(completions) == pb.ClaimResponse(state=pb.CLAIM_STATE_RUNNING)
    await completions.finish(pb.FinishRequest(token=first.token, answer=ANSWER))
    for _ in range(2):
        assert await claim(completions) == pb.ClaimResponse(state=pb.CLAIM_STATE_DONE, answer=ANSWER)


async def test_an_abandoned_key_is_free(completions: CompletionsService) -> None:
    first = await claim(completions)
    await completions.abandon(pb.AbandonRequest(token=first.token))
    second = await claim(completions, print_=b"two")
    assert second.state == pb.CLAIM_STATE_CLAIMED and second.token != first.token
    # Its time is over.
    await completions.finish(pb.FinishRequest(token=first.token, answer=ANSWER))
    await completions.abandon(pb.AbandonRequest(token=first.token))
    assert (await claim(completions, print_=b"two")).state == pb.CLAIM_STATE_RUNNING


async def test_an_answer_is_final(completions: CompletionsService) -> None:
    first = await claim(completions)
    await completions.finish(pb.FinishRequest(token=first.token, answer=ANSWER))
    await completions.finish(pb.FinishRequest(token=first.token, answer=pb.Answer(status=500)))
    await completions.abandon(pb.AbandonRequest(token=first.token))
    assert (await claim(completions)).answer == ANSWER


async def test_another_request_with_the_key_is_refused(completions: CompletionsService) -> None:
    first = await claim(completions)
    mismatch = pb.ClaimResponse(state=pb.CLAIM_STATE_MISMATCH)
    assert await claim(completions, print_=b"two") == mismatch
    await completions.finish(pb.FinishRequest(token=first.token, answer=ANSWER))
    assert await claim(completions, print_=b"two") == mismatch


async def test_keys_are_a_projects_own(completions: CompletionsService) -> None:
    states = [
        (await claim(completions, key, project=project)).state
        for key, project in (("key", "proj-1"), ("key\0", "proj-1"), ("é" * 255, "proj-1"), ("key", "proj-2"))
    ]
    assert states == [pb.CLAIM_STATE_CLAIMED] * 4


async def test_one_of_many_claims_wins(completions: CompletionsService) -> None:
    states = [response.state for response in await asyncio.gather(*(claim(completions) for _ in range(20)))]
    assert sorted(states) == [pb.CLAIM_STATE_CLAIMED] + [pb.CLAIM_STATE_RUNNING] * 19


async def test_a_large_answer_is_refused(real: CompletionsService) -> None:
    first = await claim(real)
    with pytest.raises(Fault) as caught:
        await real.finish(pb.FinishRequest(token=first.token, answer=pb.Answer(status=200, body=b"x" * 101)))
    assert caught.value.reason == "object_too_large"
    assert (await claim(real)).state == pb.CLAIM_STATE_RUNNING
