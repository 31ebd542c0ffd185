"""ChatInferenceService, over both wirings."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from modelplane.chat_inference.v1.chat_inference_api import ChatInferenceService
from modelplane.chat_inference.v1.chat_inference_pb2 import (
    FINISH_REASON_ABORT,
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    Delta,
)
from modelplane.usage.v1.usage_pb2 import OUTCOME_ABORTED, OUTCOME_COMPLETED, OUTCOME_FAILED
from services.chat_inference.service import ChatInference
from tests.contract.conftest import Wire
from tests.services.chat_inference.peer import Ledger, Peer, asked, generated, replica, text


@asynccontextmanager
async def joined(wire: Wire, service: ChatInference) -> AsyncIterator[Peer]:
    async with Peer(await wire(ChatInferenceService, service)) as peer:
        yield peer
    await service.close()


async def test_a_request_ends_with_its_usage(wire: Wire) -> None:
    async with joined(wire, replica(tokens=3)) as peer:
        deltas = await peer.run(asked("a", prompt=7))
    assert text(deltas) == " tok1 tok2 tok3"
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == [FINISH_REASON_STOP]
    usage = deltas[-1].usage
    assert (usage.request_id, usage.attribution.key_id, usage.model) == ("a", "key-1", "scripted")
    assert (usage.service_tier, usage.operation) == ("priority", "chat.completions")
    assert (usage.input_tokens, usage.output_tokens, usage.outcome) == (7, 3, OUTCOME_COMPLETED)
    assert 0 < usage.started_at_ms <= usage.finished_at_ms
    assert not any(delta.HasField("usage") or delta.HasField("fault") for delta in deltas[:-1])


async def test_choices_end_one_by_one_at_the_bound(wire: Wire) -> None:
    async with joined(wire, replica(tokens=9)) as peer:
        deltas = await peer.run(asked("a", n=3, most=2))
    assert [text(deltas, choice) for choice in range(3)] == [" tok1 tok2"] * 3
    reasons = [delta.finish_reason for delta in deltas if delta.finish_reason]
    assert reasons == [FINISH_REASON_LENGTH] * 3
    assert deltas[-1].usage.output_tokens == 6


async def test_an_abort_is_metered_exactly(wire: Wire) -> None:
    async with joined(wire, replica(tokens=10_000, token_ms=1)) as peer:
        peer.start(asked("a"))
        peer.start(asked("b", most=3))
        await peer.begun("a")
        peer.abort("unknown")
        peer.abort("a")
        deltas = await peer.ended("a")
        assert generated(await peer.ended("b")) == 3
    assert deltas[-1].finish_reason == FINISH_REASON_ABORT
    assert deltas[-1].usage.outcome == OUTCOME_ABORTED
    assert deltas[-1].usage.output_tokens == generated(deltas) > 0
    assert deltas[-1].usage.input_tokens == 7
    assert not deltas[-1].HasField("fault")


async def test_an_abort_that_comes_at_once_is_not_lost(wire: Wire) -> None:
    async with joined(wire, replica(tokens=1_000_000)) as peer:
        peer.start(asked("a", most=1_000_000))
        peer.abort("a")
        deltas = await peer.ended("a")
    assert deltas[-1].usage.outcome == OUTCOME_ABORTED
    assert deltas[-1].usage.output_tokens == generated(deltas)


async def test_many_requests_share_a_session(wire: Wire) -> None:
    async with joined(wire, replica(tokens=20, token_ms=2)) as peer:
        ends = await asyncio.gather(*(peer.run(asked(f"r{i}")) for i in range(40)))
        assert all(generated(deltas) == 20 == deltas[-1].usage.output_tokens for deltas in ends)
        # A step of the engine is a frame, not a message per request.
        assert peer.frames < 400


@pytest.mark.parametrize(
    ("request_id", "change", "reason"),
    [
        ("running", {}, "duplicate_request"),
        ("b", {"model": "other"}, "model_not_found"),
        ("b", {"prompt": 0}, "invalid_value"),
        ("b", {"n": 0}, "invalid_value"),
        ("b", {"most": 0}, "invalid_value"),
        ("b", {}, "overloaded"),
    ],
)
async def test_refusals(wire: Wire, request_id: str, change: dict[str, object], reason: str) -> None:
    slots = 1 if reason == "overloaded" else 64
    async with joined(wire, replica(tokens=10_000, token_ms=1, slots=slots)) as peer:
        peer.start(asked("running"))
        await peer.begun("running")
        peer.start(asked(request_id, **change))  # type: ignore[arg-type]
        last = await last_fault(peer, request_id)
    assert last.fault.reason == reason
    assert (last.usage.outcome, last.usage.input_tokens, last.usage.output_tokens) == (OUTCOME_FAILED, 0, 0)


async def last_fault(peer: Peer, request_id: str) -> Delta:
    return (await peer.ended(request_id))[-1]


async def test_a_peer_that_hangs_up_gets_what_its_requests_used(wire: Wire) -> None:
    ledger = Ledger()
    async with joined(wire, replica(tokens=10_000, token_ms=1, ledger=ledger)) as peer:
        peer.start(asked("a"))
        await peer.begun("a")
        await peer.hang_up()
        deltas = peer.deltas["a"]
        assert deltas[-1].usage.outcome == OUTCOME_ABORTED
        assert deltas[-1].usage.output_tokens == generated(deltas)


async def test_a_lost_session_is_billed_by_the_replica(wire: Wire) -> None:
    ledger = Ledger(failures=1)
    service = replica(tokens=10_000, token_ms=1, ledger=ledger)
    async with joined(wire, service) as peer:
        peer.start(asked("running"))
        peer.start(asked("just ended", most=2))
        await peer.begun("running")
        await peer.ended("just ended")
        await peer.vanish()
        async with asyncio.timeout(30):
            await ledger.recorded.wait()
    seen = generated(peer.deltas["running"])
    assert ledger.usages["just ended"].output_tokens == 2
    assert ledger.usages["running"].outcome == OUTCOME_ABORTED
    assert seen <= ledger.usages["running"].output_tokens < 10_000
    assert not service.load().request_ids


async def test_a_single_request(wire: Wire) -> None:
    service = replica(tokens=4)
    client = await wire(ChatInferenceService, service)
    deltas = [response.delta async for response in client.generate(asked("a"))]
    assert (text(deltas), deltas[-1].usage.output_tokens) == (" tok1 tok2 tok3 tok4", 4)
    refused = [response.delta async for response in client.generate(asked("b", model="other"))]
    assert [delta.fault.reason for delta in refused] == ["model_not_found"]
    await service.close()


@pytest.mark.parametrize("whole", [False, True])
async def test_log_probabilities_come_with_the_text(wire: Wire, whole: bool) -> None:
    request = asked("a", n=2)
    request.sampling.top_logprobs = 2
    request.whole = whole
    async with joined(wire, replica(tokens=3)) as peer:
        deltas = await peer.run(request)
    for choice in range(2):
        places = [place for delta in deltas if delta.index == choice for place in delta.logprobs]
        assert "".join(place.token for place in places) == text(deltas, choice) == " tok1 tok2 tok3"
        assert all(len(place.top) == 2 for place in places)
    assert sum(bool(delta.logprobs) for delta in deltas) == (2 if whole else 6)


async def test_only_an_echo_may_ask_for_no_tokens(wire: Wire) -> None:
    request = asked("a", most=0)
    request.sampling.echo = True
    async with joined(wire, replica()) as peer:
        deltas = await peer.run(request)
    usage = deltas[-1].usage
    assert (usage.outcome, usage.input_tokens, usage.output_tokens) == (OUTCOME_COMPLETED, 7, 0)
