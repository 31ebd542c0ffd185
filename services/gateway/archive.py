"""Stores the answers that clients asked to store, after they have them.

Storing costs no client any time: it is done by tasks of the server's own, which try for a bounded time and within a
bounded memory. What could not be stored is logged and counted, and its client still has the answer.
"""

import asyncio
from collections.abc import Iterable
from functools import partial

import msgspec
from prometheus_client import Counter

from modelplane.chat_inference.v1.chat_inference_pb2 import Delta
from modelplane.completions.v1.completions_api import CompletionsService
from modelplane.completions.v1.completions_pb2 import PutRequest, StoredCompletion
from modelplane.usage.v1.usage_pb2 import Usage
from services import context, telemetry
from services.faults import Fault
from services.gateway.completions import Fields, Identity, completion_object
from services.gateway.outputs.answers import Answers, ChoiceStream, answers
from services.gateway.outputs.parsers import parser
from services.gateway.outputs.reading import call_id
from services.gateway.requests.chat import ChatRequest
from services.gateway.retries import insist
from services.gateway.runs import Run
from services.gateway.settings import GatewaySettings
from services.gateway.sse import Chunks

UNSTORED = Counter("modelplane_completions_unstored", "Answers that were to be stored and could not be.")

log = telemetry.logger(__name__)


class Archive:
    """Puts completions into the service that keeps them. `finish` waits for what is under way."""

    def __init__(self, completions: CompletionsService, settings: GatewaySettings) -> None:
        self._completions = completions
        self._settings = settings
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting_bytes = 0

    def keep(self, stored: StoredCompletion) -> None:
        """Stores it soon."""
        size = len(stored.request_messages_json) + len(stored.completion_json)
        if self._waiting_bytes + size > self._settings.max_storing_bytes:
            _give_up("too much waits to be stored")
            return
        self._waiting_bytes += size
        task = asyncio.get_running_loop().create_task(self._put(stored, size))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Waits until everything is stored, or given up."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Gives up what is not stored yet."""
        for task in self._tasks:
            task.cancel()
        await self.finish()

    async def _put(self, stored: StoredCompletion, size: int) -> None:
        try:
            with context.call(context.request_id(), self._settings.store_timeout_s):
                await insist(partial(self._completions.put, PutRequest(completion=stored)))
        except Fault as fault:
            _give_up(fault.reason)
        except asyncio.CancelledError:
            _give_up("the server is stopping")
            raise
        except Exception as error:
            log.error("storing failed", exc_info=error)
            UNSTORED.inc()
        finally:
            self._waiting_bytes -= size


def _give_up(reason: str) -> None:
    UNSTORED.inc()
    log.error("a completion is not stored", reason=reason)


class _Messages(msgspec.Struct):
    messages: msgspec.Raw


def request_messages(body: bytes) -> bytes:
    """The messages in the body of a request that has some, as the client wrote them."""
    return bytes(msgspec.json.decode(body, type=_Messages).messages)


def stored_completion(
    run: Run, chat: ChatRequest, messages: bytes, completion_id: str, answer: bytes
) -> StoredCompletion:
    """What is stored of a run. `messages` and `answer` are JSON."""
    return StoredCompletion(
        id=completion_id,
        organization_id=run.principal.organization_id,
        project_id=run.principal.project_id,
        model=run.model,
        created_at_ms=run.started_at_ms,
        metadata=chat.metadata,
        request_messages_json=messages,
        completion_json=answer,
    )


class KeptChunks:
    """Writes the chunks of a stream, and keeps what they add up to."""

    def __init__(self, identity: Identity, chat: ChatRequest, tool_format: str) -> None:
        self.identity = identity
        self._chat = chat
        self._tool_format = tool_format
        self._calls = None if answers(chat, tool_format) is None else _RememberedCalls(chat, tool_format)
        self._chunks = Chunks(identity, chat, self._calls)
        self._deltas: list[Delta] = []

    def of(self, deltas: Iterable[Delta]) -> bytes:
        """The events for some deltas."""
        came = list(deltas)
        self._deltas += came
        return self._chunks.of(came)

    def end(self, usage: Usage) -> bytes:
        """The end of a stream that went well."""
        return self._chunks.end(usage)

    def completion(self) -> Fields:
        """The object whose chunks these were. Once the stream has ended well."""
        given = None
        if self._calls is not None:
            ids = iter(self._calls.ids(delta.index for delta in self._deltas))
            given = answers(self._chat, self._tool_format, lambda: next(ids, None) or call_id())
        return completion_object(self.identity, self._chat, self._deltas, self._deltas[-1].usage, given)


class _RememberedCalls(Answers):
    """Answers that know which ids they gave to the calls, so that the object has those of the stream."""

    def __init__(self, chat: ChatRequest, tool_format: str) -> None:
        super().__init__(chat, tool_format)
        # Of each choice, in the order in which the choices began.
        self._given: list[list[str]] = []

    def stream(self) -> ChoiceStream:
        ids: list[str] = []
        self._given.append(ids)

        def new_id() -> str:
            ids.append(call_id())
            return ids[-1]

        return ChoiceStream(self, parser(self._format, self._names, new_id))

    def ids(self, indices: Iterable[int]) -> list[str]:
        """Those of all choices, by choice. `indices` says whose the deltas were."""
        by_choice = dict(zip(dict.fromkeys(indices), self._given, strict=True))
        return [id_ for index in sorted(by_choice) for id_ in by_choice[index]]
