"""What a replica asks of an engine, whichever program runs the model.

The shape is small because it is on the way of every token: one named tuple per piece, no message, no queue. An
engine reports exactly what it generated, also for a request that was aborted, since the bill is made from it.
"""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from modelplane.chat_inference.v1.chat_inference_pb2 import FinishReason, GenerateRequest, TokenLogprob
from services.catalog import ModelSpec
from services.chat_inference.settings import Settings

Report = Callable[[str], None]


class Piece(NamedTuple):
    """What one step of the engine added to one choice."""

    choice: int
    """Which of the request's choices, from 0."""
    text: str
    """May be empty while a character or a stop string is incomplete."""
    tokens: int
    """Tokens generated in this step."""
    finish_reason: FinishReason
    """STOP or LENGTH on the last piece of a choice, else UNSPECIFIED."""
    cached_tokens: int
    """Prompt tokens that came out of the prefix cache; the same on every piece of a request."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """When they were asked for, one for each token of `text`; tokens that a stop string cut off have none."""
    added_tokens: int = 0
    """Prompt tokens beyond the request's own, which the engine put in place of images; the same on every piece."""


class Engine(Protocol):
    """Runs one model. Methods are called from one event loop."""

    async def start(self, report: Report) -> None:
        """Loads the model and runs it once, so that the first request is as fast as the others.

        `report` is told what happens, in words for people. Raises when the model cannot be served.
        """
        ...

    def generate(self, request: GenerateRequest) -> AsyncIterator[Piece]:
        """Runs a request to its end: until every choice has had its last piece, or `abort` cut it short.

        With `echo`, a choice's first piece is the prompt, with no tokens. Raises InvalidRequest for one that can
        never run, Unavailable for one that may at another time, anything else when the engine failed.
        """
        ...

    async def abort(self, request_id: str) -> None:
        """Ends a running request soon; its iterator then delivers what is left and stops. Unknown ids are ignored."""
        ...

    def cache_used(self) -> float:
        """The share of the key-value cache in use, 0 to 1."""
        ...

    def healthy(self) -> bool:
        """False once the engine can never generate again, such as when its process died."""
        ...

    async def close(self) -> None:
        """Frees everything; no process is left behind. Also after a failed or interrupted start."""
        ...


def make_engine(spec: ModelSpec, checkpoint: Path, settings: Settings) -> Engine:
    """The engine that the model's configuration names; its imports cost seconds, so only that one is loaded."""
    if spec.engine == "scripted":
        from services.chat_inference.engines.scripted import ScriptedEngine

        return ScriptedEngine(spec.script)
    from services.chat_inference.engines.vllm import VllmEngine

    return VllmEngine(spec, checkpoint, settings)
