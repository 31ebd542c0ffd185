"""A legacy completion as OpenAI's `text_completion` object; the chunks of a streamed one have the same shape."""

import codecs
import math
from collections.abc import Iterable, Sequence

from modelplane.chat_inference.v1.chat_inference_pb2 import Delta, TokenLogprob
from modelplane.usage.v1.usage_pb2 import Usage
from services.gateway.completions import FINISH_REASONS, Choice, Fields, Identity, finite, usage_object
from services.gateway.requests.text import TextRequest
from services.gateway.sse import Envelope


class Tokens:
    """OpenAI's legacy log probabilities of one choice, piece by piece."""

    def __init__(self) -> None:
        # Offsets count characters, and a token may end within one.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def fields(self, logprobs: Iterable[TokenLogprob]) -> Fields:
        """Four lists with an item per token; null for the first token of a prompt, which nothing could predict."""
        names: list[str] = []
        measured: list[float | None] = []
        tops: list[dict[str, float | None] | None] = []
        offsets: list[int] = []
        for token in logprobs:
            name, logprob = _name(token), _logprob(token)
            names.append(name)
            measured.append(logprob)
            tops.append(None if logprob is None else {_name(it): _logprob(it) for it in token.top} | {name: logprob})
            offsets.append(self._offset)
            self._offset += len(self._decoder.decode(token.raw))
        return {"tokens": names, "token_logprobs": measured, "top_logprobs": tops, "text_offset": offsets}


def _name(token: TokenLogprob) -> str:
    """Its text; its bytes, in OpenAI's way, where they are no text by themselves."""
    try:
        return token.raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.raw)


def _logprob(token: TokenLogprob) -> float | None:
    return None if math.isnan(token.logprob) else finite(token.logprob)


class Candidate(Choice):
    """A choice that was generated, whether or not the client gets it."""

    __slots__ = ("_echoed",)

    def __init__(self) -> None:
        super().__init__()
        # Log probabilities that are the prompt's.
        self._echoed = 0

    def add(self, delta: Delta) -> None:
        # The prompt comes first, and no token was generated for it.
        if not self.texts and not delta.tokens:
            self._echoed = len(delta.logprobs)
        super().add(delta)

    def score(self) -> float:
        """The mean log probability of what was generated; nothing at all is the worst."""
        generated = self.logprobs[self._echoed :]
        if not generated:
            return -math.inf
        return sum(token.logprob for token in generated) / len(generated)


def text_object(identity: Identity, request: TextRequest, deltas: Iterable[Delta], usage: Usage) -> Fields:
    """OpenAI's CreateCompletionResponse. The deltas have `best_of` choices for each prompt, whose best `n` it keeps."""
    candidates = [Candidate() for _ in range(len(request.prompt) * request.best_of)]
    for delta in deltas:
        if not delta.HasField("usage"):
            candidates[delta.index].add(delta)
    choices: list[Candidate] = []
    for start in range(0, len(candidates), request.best_of):
        choices += _best(candidates[start : start + request.best_of], request.n)
    with_logprobs = request.logprobs is not None
    return {
        **_head(identity),
        "choices": [
            {
                "text": "".join(choice.texts),
                "index": index,
                "logprobs": Tokens().fields(choice.logprobs) if with_logprobs else None,
                "finish_reason": choice.finish_reason,
            }
            for index, choice in enumerate(choices)
        ],
        "usage": usage_object(usage),
    }


def _best(candidates: Sequence[Candidate], n: int) -> Sequence[Candidate]:
    if n == len(candidates):
        return candidates
    return sorted(candidates, key=Candidate.score, reverse=True)[:n]


def _head(identity: Identity) -> Fields:
    return {
        "id": identity.id,
        "object": "text_completion",
        "created": identity.created,
        "model": identity.model,
        "system_fingerprint": identity.system_fingerprint,
    }


class TextChunks(Envelope):
    """Writes the chunks of one stream as bytes."""

    def __init__(self, identity: Identity, request: TextRequest) -> None:
        super().__init__(
            _head(identity), include_usage=request.include_usage, include_obfuscation=request.include_obfuscation
        )
        self._with_logprobs = request.logprobs is not None
        # By choice.
        self._tokens: dict[int, Tokens] = {}

    def of(self, deltas: Iterable[Delta]) -> bytes:
        """The events for some deltas."""
        parts: list[bytes] = []
        for delta in deltas:
            reason = FINISH_REASONS.get(delta.finish_reason)
            if not (delta.text or delta.logprobs or reason):
                continue
            choice = self._encode(
                {
                    "text": delta.text,
                    "index": delta.index,
                    "logprobs": self._logprobs(delta) if self._with_logprobs and delta.logprobs else None,
                    "finish_reason": reason,
                }
            )
            parts += (self._head, b',"choices":[', choice, b"]", self._padded(len(choice)), self._end)
        return b"".join(parts)

    def _logprobs(self, delta: Delta) -> Fields:
        return self._tokens.setdefault(delta.index, Tokens()).fields(delta.logprobs)
