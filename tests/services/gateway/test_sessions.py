"""Sessions: shared by requests, closed when idle, and independent of the request that opened them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from modelplane.chat_inference.v1.chat_inference_api import ChatInferenceService
from modelplane.chat_inference.v1.chat_inference_pb2 import (
    Delta,
    GenerateRequest,
    Sampling,
    SessionRequest,
    SessionResponse,
)
from services import context
from services.gateway.sessions import Sessions
from tests.fakes.replica import FakeReplica
from tests.services.gateway.conftest import until


class Receiver:
    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.ended = asyncio.Event()
        self.was_lost = False

    def deliver(self, delta: Delta, /) -> None:
        self.deltas.append(delta)
        if delta.HasField("usage"):
            self.ended.set()

    def lost(self) -> None:
        self.was_lost = True
        self.ended.set()


class Replicas:
    """Connects to one fake replica and counts the connections."""

    def __init__(self, replica: FakeReplica) -> None:
        self.replica = replica
        self.open = 0
        self.made = 0

    @asynccontextmanager
    async def connect(self, address: str) -> AsyncIterator[ChatInferenceService]:
        self.open += 1
        self.made += 1
        try:
            yield self.replica
        finally:
            self.open -= 1


def start(sessions: Sessions, request_id: str) -> Receiver:
    receiver = Receiver()
    sampling = Sampling(n=1, max_output_tokens=100)
    request = GenerateRequest(request_id=request_id, model="m", prompt_token_ids=[1], sampling=sampling)
    sessions.to("a").start(request, receiver)
    return receiver


async def test_requests_share_a_session_and_get_their_own_deltas() -> None:
    replicas = Replicas(FakeReplica(token_s=0.001))
    sessions = Sessions(replicas.connect, idle_s=60)
    receivers = {f"r{index}": start(sessions, f"r{index}") for index in range(20)}
    for request_id, receiver in receivers.items():
        await receiver.ended.wait()
        assert {delta.request_id for delta in receiver.deltas} == {request_id}
        assert "".join(delta.text for delta in receiver.deltas) == 'Hello, wörld\n"!"'
    assert (replicas.made, replicas.replica.sessions) == (1, 1)
    await sessions.close()
    assert replicas.open == 0


async def test_an_idle_session_is_closed_and_a_busy_one_is_not() -> None:
    replicas = Replicas(FakeReplica([" word"] * 20, token_s=0.02))
    sessions = Sessions(replicas.connect, idle_s=0.03)
    busy = start(sessions, "busy")
    await busy.ended.wait()
    assert not busy.was_lost
    assert replicas.open == 1
    sessions.to("a").forget("busy")
    await until(lambda: replicas.open == 0)
    assert not busy.was_lost
    again = start(sessions, "again")
    await again.ended.wait()
    assert not again.was_lost and replicas.made == 2
    await sessions.close()


async def test_a_session_that_cannot_open_tells_its_requests() -> None:
    @asynccontextmanager
    async def connect(address: str) -> AsyncIterator[ChatInferenceService]:
        raise OSError("no route")
        yield FakeReplica()

    sessions = Sessions(connect, idle_s=60)
    receiver = start(sessions, "r")
    await receiver.ended.wait()
    assert receiver.was_lost
    await sessions.close()


async def test_closing_tells_the_requests() -> None:
    sessions = Sessions(Replicas(FakeReplica([" word"] * 500, token_s=0.01)).connect, idle_s=60)
    receiver = start(sessions, "r")
    await until(lambda: bool(receiver.deltas))
    await sessions.close()
    assert receiver.was_lost


async def test_a_session_takes_nothing_from_the_request_that_opens_it() -> None:
    seen: list[tuple[str, float | None]] = []

    class Nosy(FakeReplica):
        async def session(self, requests: AsyncIterator[SessionRequest], /) -> AsyncIterator[SessionResponse]:
            seen.append((context.request_id(), context.remaining_s()))
            async for frame in super().session(requests):
                yield frame

    sessions = Sessions(Replicas(Nosy()).connect, idle_s=60)
    with context.call("req_1", timeout_s=1.0):
        receiver = start(sessions, "r")
    await receiver.ended.wait()
    assert seen == [("", None)]
    await sessions.close()


async def test_a_request_with_images_has_a_message_of_its_own() -> None:
    class Recorder(FakeReplica):
        async def session(self, requests: AsyncIterator[SessionRequest], /) -> AsyncIterator[SessionResponse]:
            async for request in requests:
                messages.append(([start.request_id for start in request.starts], list(request.aborts)))
                yield SessionResponse()

    messages: list[tuple[list[str], list[str]]] = []
    sessions = Sessions(Replicas(Recorder()).connect, idle_s=60)
    session = sessions.to("a")
    for request_id in "abcde":
        request = GenerateRequest(request_id=request_id)
        if request_id in "bc":
            request.images.add(content=b"x")
        session.start(request, Receiver())
    session.abort("a")
    await until(lambda: len(messages) == 4)
    assert messages == [(["a"], []), (["b"], []), (["c"], []), (["d", "e"], ["a"])]
    await sessions.close()
