"""The gateway's streams to the replicas: one long-lived session per replica, shared by all its requests.

A session opens with its first request and closes when it was idle for a while. Each frame carries the deltas of
many requests; they are handed out by request id with one dictionary lookup each. When a session ends, by
whichever side, every request on it is told at once, and the next request opens a new one.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from typing import Protocol

from modelplane.chat_inference.v1.chat_inference_api import ChatInferenceService
from modelplane.chat_inference.v1.chat_inference_pb2 import Delta, GenerateRequest, SessionRequest
from services import telemetry
from services.faults import Fault

Connect = Callable[[str], AbstractAsyncContextManager[ChatInferenceService]]

log = telemetry.logger(__name__)


class Receiver(Protocol):
    """What a request's deltas go to. Neither method may block."""

    def deliver(self, delta: Delta, /) -> None: ...

    def lost(self) -> None: ...


class Session:
    """One stream to one replica."""

    def __init__(self, address: str, connect: Connect, ended: Callable[["Session"], None]) -> None:
        self.address = address
        # Whether anything was started since the last look; the sweeper clears it.
        self.used = True
        self._connect = connect
        self._ended = ended
        self._receivers: dict[str, Receiver] = {}
        # What the next messages will ask for; the last one grows while an earlier one is being written.
        self._asked = [SessionRequest()]
        self._asking = asyncio.Event()
        # A session outlives the request that opens it, so it takes neither its deadline nor its trace.
        self._task = asyncio.get_running_loop().create_task(self._exchange(), context=Context())

    @property
    def idle(self) -> bool:
        return not self._receivers

    def start(self, request: GenerateRequest, receiver: Receiver) -> None:
        """Sends a request to the replica; its deltas go to `receiver` until it is forgotten."""
        self.used = True
        self._receivers[request.request_id] = receiver
        if request.images:
            # With others in one message it could be longer than a message may be.
            self._asked += (SessionRequest(starts=[request]), SessionRequest())
        else:
            self._asked[-1].starts.append(request)
        self._asking.set()

    def abort(self, request_id: str) -> None:
        """Asks the replica to end a request; its last delta, with the usage, still comes."""
        self._asked[-1].aborts.append(request_id)
        self._asking.set()

    def forget(self, request_id: str) -> None:
        self._receivers.pop(request_id, None)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _exchange(self) -> None:
        reason = "closed"
        try:
            async with self._connect(self.address) as replica:
                async for frame in replica.session(self._requests()):
                    receivers = self._receivers
                    for delta in frame.deltas:
                        if receiver := receivers.get(delta.request_id):
                            receiver.deliver(delta)
        except Fault as fault:
            reason = fault.reason
        except Exception as error:
            reason = "failed"
            log.error("a session failed", address=self.address, exc_info=error)
        finally:
            self._ended(self)
            receivers, self._receivers = self._receivers, {}
            if receivers:
                log.warning("session lost", address=self.address, reason=reason, requests=len(receivers))
            for receiver in receivers.values():
                receiver.lost()

    async def _requests(self) -> AsyncIterator[SessionRequest]:
        while True:
            await self._asking.wait()
            self._asking.clear()
            asked, self._asked = self._asked, [SessionRequest()]
            for message in asked:
                if message.starts or message.aborts:
                    yield message


class Sessions:
    """The open sessions, by address. Close it when the gateway stops."""

    def __init__(self, connect: Connect, idle_s: float) -> None:
        self._connect = connect
        self._idle_s = idle_s
        self._sessions: dict[str, Session] = {}
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep(), context=Context())

    def to(self, address: str) -> Session:
        """The session to a replica, opened if there is none."""
        session = self._sessions.get(address)
        if session is None:
            session = self._sessions[address] = Session(address, self._connect, self._remove)
        return session

    async def close(self) -> None:
        self._sweeper.cancel()
        await asyncio.gather(self._sweeper, return_exceptions=True)
        for session in list(self._sessions.values()):
            await session.close()

    def _remove(self, session: Session) -> None:
        if self._sessions.get(session.address) is session:
            del self._sessions[session.address]

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._idle_s)
            for session in list(self._sessions.values()):
                if session.idle and not session.used:
                    self._remove(session)
                    await session.close()
                session.used = False
