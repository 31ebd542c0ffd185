"""What a replica does when things around it fail: the engine, the peer, billing, time."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from modelplane.chat_inference.v1.chat_inference_pb2 import (
    FINISH_REASON_STOP,
    FINISH_REASON_UNSPECIFIED,
    GenerateRequest,
    SessionRequest,
)
from modelplane.usage.v1.usage_pb2 import OUTCOME_COMPLETED, OUTCOME_FAILED
from services.catalog import DEFAULT_MODEL, Catalog
from services.chat_inference.engines.engine import Piece, Report
from services.chat_inference.service import choose_model
from services.chat_inference.settings import Settings
from services.faults import Cancelled, InvalidRequest, Unavailable
from services.settings import SettingsError
from tests.services.chat_inference.peer import Ledger, Peer, asked, generated, replica, text


class FailingEngine:
    """Says one token and then fails as it is told; `error` None is an end without a reason."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.alive = True

    async def start(self, report: Report) -> None:
        report("starting")

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Piece]:
        yield Piece(0, "half", 1, FINISH_REASON_UNSPECIFIED, 5)
        if self.error:
            raise self.error

    async def abort(self, request_id: str) -> None:
        """Nothing lasts long enough."""

    def cache_used(self) -> float:
        return 0.25

    def healthy(self) -> bool:
        return self.alive

    async def close(self) -> None:
        """Nothing is held."""


class CachingEngine(FailingEngine):
    """Took two tokens of each prompt from its cache."""

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Piece]:
        yield Piece(0, "a", 1, FINISH_REASON_UNSPECIFIED, 2)
        yield Piece(0, "", 3, FINISH_REASON_STOP, 2)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("secret detail"), "engine_failed"),
        (None, "engine_failed"),
        (InvalidRequest("context_length_exceeded", "Too long."), "context_length_exceeded"),
    ],
)
async def test_a_failure_of_the_engine_is_metered_and_told(error: Exception | None, reason: str) -> None:
    service = replica(engine=FailingEngine(error))
    async with Peer(service) as peer:
        deltas = await peer.run(asked("a"))
    assert text(deltas) == "half"
    assert deltas[-1].fault.reason == reason
    assert "secret" not in deltas[-1].fault.message
    usage = deltas[-1].usage
    assert (usage.outcome, usage.input_tokens, usage.output_tokens) == (OUTCOME_FAILED, 7, 1)
    await service.close()


async def test_cached_tokens_are_counted_once() -> None:
    service = replica(engine=CachingEngine(None))
    async with Peer(service) as peer:
        usage = (await peer.run(asked("a")))[-1].usage
    assert (usage.input_tokens, usage.cached_input_tokens, usage.output_tokens) == (7, 2, 4)
    assert usage.outcome == OUTCOME_COMPLETED
    await service.close()


async def test_a_dead_engine_is_noticed() -> None:
    engine = FailingEngine(None)
    service = replica(engine=engine)
    await service.ping()
    assert service.load().healthy
    failed = asyncio.create_task(service.failed())
    await asyncio.sleep(0)
    assert not failed.done()
    engine.alive = False
    async with asyncio.timeout(30):
        await failed
    assert not service.load().healthy
    with pytest.raises(Unavailable):
        await service.ping()
    await service.close()


async def test_a_peer_that_does_not_read_is_dropped_and_billed() -> None:
    ledger = Ledger()
    service = replica(tokens=100_000, ledger=ledger, settings=Settings(usage_grace_ms=0, outbox_bytes=10_000))
    asking = asyncio.Event()

    async def requests() -> AsyncIterator[SessionRequest]:
        yield SessionRequest(starts=[asked("a")])
        await asking.wait()

    frames = aiter(service.session(requests()))
    first = await anext(frames)
    async with asyncio.timeout(30):
        await ledger.recorded.wait()
    assert not service.load().request_ids
    seen = generated(list(first.deltas))
    assert 0 < seen < ledger.usages["a"].output_tokens < 2000
    with pytest.raises(Cancelled) as raised:
        await anext(frames)
    assert raised.value.reason == "slow_client"
    await service.close()


async def test_nothing_is_billed_for_what_the_peer_never_saw() -> None:
    """A gateway that saw nothing runs the request elsewhere, under the same id."""
    ledger = Ledger()
    service = replica(tokens=100, token_ms=1, ledger=ledger)
    asking = asyncio.Event()

    async def requests() -> AsyncIterator[SessionRequest]:
        yield SessionRequest(starts=[asked("seen", most=1)])
        await asyncio.sleep(0.02)
        yield SessionRequest(starts=[asked("unseen")])
        await asking.wait()

    frames = service.session(requests())
    await anext(aiter(frames))
    async with asyncio.timeout(30):
        while "unseen" not in service.load().request_ids:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)
    await frames.aclose()  # type: ignore[attr-defined]
    await service.close()
    assert list(ledger.usages) == ["seen"]


async def test_usage_waits_for_the_grace_but_not_at_the_end() -> None:
    ledger = Ledger(failures=0)
    service = replica(tokens=1000, token_ms=1, ledger=ledger, settings=Settings(usage_grace_ms=60_000))
    async with Peer(service) as peer:
        peer.start(asked("a"))
        await peer.begun("a")
    await asyncio.sleep(0.05)
    assert not ledger.usages
    await service.close()
    assert ledger.usages["a"].output_tokens >= generated(peer.deltas["a"]) > 0


async def test_a_drain_finishes_what_runs_and_refuses_more() -> None:
    service = replica(tokens=50, token_ms=2)
    async with Peer(service) as peer:
        peer.start(asked("a"))
        await peer.begun("a")
        draining = asyncio.create_task(service.drain())
        await asyncio.sleep(0)
        refused = await peer.run(asked("b"))
        assert refused[-1].fault.reason == "shutting_down"
        assert generated(await peer.ended("a")) == 50
        await draining
        await service.close()


async def test_close_ends_sessions_and_their_peers_learn_the_usage() -> None:
    ledger = Ledger()
    service = replica(tokens=10_000, token_ms=1, ledger=ledger)
    async with Peer(service) as peer:
        peer.start(asked("a"))
        await peer.begun("a")
        await service.close()
        deltas = await peer.ended("a")
        assert deltas[-1].usage.output_tokens == generated(deltas)
    assert not ledger.usages


def test_the_model_is_chosen_from_the_catalogue() -> None:
    catalog = Catalog((DEFAULT_MODEL,))
    assert choose_model(catalog, "") is choose_model(catalog, DEFAULT_MODEL.name) is DEFAULT_MODEL
    with pytest.raises(SettingsError, match="smollm2"):
        choose_model(catalog, "other")
