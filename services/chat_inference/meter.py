"""Puts one request's pieces together: its texts, its counts, its usage record. Pure: time comes as an argument.

Kept true: the record holds exactly the tokens of the pieces that were counted; the prompt is charged for only
once it gave a token, because an engine that failed or was aborted before may never have read it; its length is the
engine's own count, whatever the images of the request were estimated at.
"""

from collections.abc import Iterator

from modelplane.chat_inference.v1.chat_inference_pb2 import GenerateRequest
from modelplane.usage.v1.usage_pb2 import OUTCOME_COMPLETED, Outcome, Usage
from services.chat_inference.engines.engine import Piece


class Whole:
    """Puts the pieces of each choice together, for a peer that wants them at the end."""

    __slots__ = ("_choices",)

    def __init__(self) -> None:
        self._choices: dict[int, list[Piece]] = {}

    def add(self, piece: Piece) -> None:
        self._choices.setdefault(piece.choice, []).append(piece)

    def pieces(self) -> Iterator[Piece]:
        """One piece for each choice that has any."""
        for choice, pieces in self._choices.items():
            text = "".join([piece.text for piece in pieces])
            tokens = sum([piece.tokens for piece in pieces])
            logprobs = tuple(logprob for piece in pieces for logprob in piece.logprobs)
            yield Piece(choice, text, tokens, pieces[-1].finish_reason, pieces[-1].cached_tokens, logprobs)


class Meter:
    """The counters of one request. Times are Unix milliseconds."""

    __slots__ = ("_added_tokens", "_cached_tokens", "_finished", "_request", "_started_at_ms", "output_tokens")

    def __init__(self, request: GenerateRequest, started_at_ms: int) -> None:
        self._request = request
        self._started_at_ms = started_at_ms
        self._cached_tokens = 0
        self._added_tokens = 0
        self._finished = 0
        self.output_tokens = 0

    def add(self, piece: Piece) -> None:
        self.output_tokens += piece.tokens
        self._cached_tokens = piece.cached_tokens
        self._added_tokens = piece.added_tokens
        if piece.finish_reason:
            self._finished += 1

    @property
    def complete(self) -> bool:
        """True when every choice has had its last piece."""
        return self._finished >= self._request.sampling.n

    def usage(self, outcome: Outcome, finished_at_ms: int, reasoning_tokens: int = 0) -> Usage:
        """The record of what was consumed until now. `reasoning_tokens` are a part of the output tokens."""
        request = self._request
        read = self.output_tokens > 0 or outcome == OUTCOME_COMPLETED
        return Usage(
            request_id=request.request_id,
            attribution=request.attribution,
            model=request.model,
            service_tier=request.service_tier or "default",
            input_tokens=len(request.prompt_token_ids) + self._added_tokens if read else 0,
            cached_input_tokens=self._cached_tokens if read else 0,
            # One of the request's tokens stands for each image; the engine's are put in its place.
            input_image_tokens=len(request.images) + self._added_tokens if read else 0,
            output_tokens=self.output_tokens,
            reasoning_tokens=reasoning_tokens,
            outcome=outcome,
            started_at_ms=self._started_at_ms,
            finished_at_ms=finished_at_ms,
            operation=request.operation,
        )
