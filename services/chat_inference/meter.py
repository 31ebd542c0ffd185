"""Counts what one request used, piece by piece, and writes its usage record. Pure: time comes as an argument.

Kept true: the record holds exactly the tokens of the pieces that were counted; the prompt is charged for only
once it gave a token, because an engine that failed or was aborted before may never have read it.
"""

from modelplane.chat_inference.v1.chat_inference_pb2 import GenerateRequest
from modelplane.usage.v1.usage_pb2 import OUTCOME_COMPLETED, Outcome, Usage
from services.chat_inference.engines.engine import Piece


class Meter:
    """The counters of one request. Times are Unix milliseconds."""

    __slots__ = ("_cached_tokens", "_finished", "_request", "_started_at_ms", "output_tokens")

    def __init__(self, request: GenerateRequest, started_at_ms: int) -> None:
        self._request = request
        self._started_at_ms = started_at_ms
        self._cached_tokens = 0
        self._finished = 0
        self.output_tokens = 0

    def add(self, piece: Piece) -> None:
        self.output_tokens += piece.tokens
        self._cached_tokens = piece.cached_tokens
        if piece.finish_reason:
            self._finished += 1

    @property
    def complete(self) -> bool:
        """True when every choice has had its last piece."""
        return self._finished >= self._request.sampling.n

    def usage(self, outcome: Outcome, finished_at_ms: int) -> Usage:
        """The record of what was consumed until now."""
        request = self._request
        read = self.output_tokens > 0 or outcome == OUTCOME_COMPLETED
        return Usage(
            request_id=request.request_id,
            attribution=request.attribution,
            model=request.model,
            service_tier=request.service_tier or "default",
            input_tokens=len(request.prompt_token_ids) if read else 0,
            cached_input_tokens=self._cached_tokens if read else 0,
            output_tokens=self.output_tokens,
            outcome=outcome,
            started_at_ms=self._started_at_ms,
            finished_at_ms=finished_at_ms,
            operation=request.operation,
        )
