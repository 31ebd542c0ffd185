"""A replica on the scripted engine, and a gateway's side of its session."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import suppress

from modelplane.billing.v1.billing_pb2 import RecordRequest, RecordResponse
from modelplane.chat_inference.v1.chat_inference_api import ChatInferenceService
from modelplane.chat_inference.v1.chat_inference_pb2 import Delta, GenerateRequest, Sampling, SessionRequest
from modelplane.usage.v1.usage_pb2 import Attribution
from services.catalog import ModelSpec, ScriptSpec
from services.chat_inference.engines.engine import Engine
from services.chat_inference.engines.scripted import ScriptedEngine
from services.chat_inference.service import ChatInference
from services.chat_inference.settings import Settings
from services.faults import Unavailable
from tests.fakes.control import FakeBilling

MODEL = "scripted"


class Ledger(FakeBilling):
    """Billing that remembers; it fails the first `failures` calls."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__()
        self.failures = failures
        self.failure = Unavailable("service_unavailable", "Billing is away.")
        self.recorded = asyncio.Event()

    async def record(self, request: RecordRequest, /) -> RecordResponse:
        response = await super().record(request)
        self.recorded.set()
        return response


def replica(
    tokens: int = 5,
    token_ms: float = 0.0,
    *,
    slots: int = 64,
    engine: Engine | None = None,
    ledger: Ledger | None = None,
    settings: Settings | None = None,
) -> ChatInference:
    script = ScriptSpec(tokens=tokens, token_ms=token_ms)
    spec = ModelSpec(name=MODEL, engine="scripted", slots=slots, script=script)
    settings = settings or Settings(usage_grace_ms=0)
    return ChatInference(engine or ScriptedEngine(script), spec, ledger or Ledger(), settings)


def asked(
    request_id: str, *, n: int = 1, most: int = 10_000_000, prompt: int = 7, model: str = MODEL
) -> GenerateRequest:
    return GenerateRequest(
        request_id=request_id,
        model=model,
        prompt_token_ids=range(prompt),
        sampling=Sampling(n=n, max_output_tokens=most),
        attribution=Attribution(organization_id="org-1", project_id="proj-1", key_id="key-1"),
        service_tier="priority",
        operation="chat.completions",
    )


class Peer:
    """Speaks in one session; remembers the deltas by request."""

    def __init__(self, service: ChatInferenceService) -> None:
        self.deltas: dict[str, list[Delta]] = defaultdict(list)
        self.frames = 0
        self._actions: asyncio.Queue[SessionRequest | None] = asyncio.Queue()
        self._news = asyncio.Event()
        self._reader = asyncio.create_task(self._read(service))

    async def __aenter__(self) -> "Peer":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.vanish()

    def start(self, request: GenerateRequest) -> None:
        self._actions.put_nowait(SessionRequest(starts=[request]))

    def abort(self, request_id: str) -> None:
        self._actions.put_nowait(SessionRequest(aborts=[request_id]))

    async def ended(self, request_id: str) -> list[Delta]:
        """The deltas of a request, once the last one is there."""
        return await self._until(request_id, last=True)

    async def begun(self, request_id: str) -> list[Delta]:
        """The deltas of a request, once the first one is there."""
        return await self._until(request_id, last=False)

    async def run(self, request: GenerateRequest) -> list[Delta]:
        self.start(request)
        return await self.ended(request.request_id)

    async def hang_up(self) -> None:
        """Asks no more, and reads to the end."""
        self._actions.put_nowait(None)
        await self._reader

    async def vanish(self) -> None:
        self._reader.cancel()
        with suppress(asyncio.CancelledError):
            await self._reader

    async def _until(self, request_id: str, last: bool) -> list[Delta]:
        async with asyncio.timeout(240):
            while not (deltas := self.deltas[request_id]) or (last and not deltas[-1].HasField("usage")):
                if self._reader.done():
                    self._reader.result()
                    raise AssertionError(f"the session ended before {request_id}")
                self._news.clear()
                await self._news.wait()
        return deltas

    async def _read(self, service: ChatInferenceService) -> None:
        frames = service.session(self._requests())
        try:
            async for frame in frames:
                self.frames += 1
                for delta in frame.deltas:
                    self.deltas[delta.request_id].append(delta)
                self._news.set()
        finally:
            self._news.set()
            await frames.aclose()  # type: ignore[attr-defined]

    async def _requests(self) -> AsyncIterator[SessionRequest]:
        while (action := await self._actions.get()) is not None:
            yield action


def text(deltas: list[Delta], choice: int = 0) -> str:
    return "".join(delta.text for delta in deltas if delta.index == choice)


def generated(deltas: list[Delta]) -> int:
    return sum(delta.tokens for delta in deltas)
