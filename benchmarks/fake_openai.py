"""An OpenAI-compatible chat server that answers at once: the upstream of the proxies that Modelplane is compared with.

Its answers are bytes prepared at start, so that what is measured is the proxy in front. It still looks at each
request as a real server must (route, key, JSON, model, messages) and refuses a malformed one, so that no proxy
looks cheap by sending rubbish. A stream is 50 content events, each its own write in its own turn of the loop.

Run: python -m benchmarks.fake_openai --port 9000
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
import uvicorn

from benchmarks.conversation import TOKENS, UPSTREAM_KEY

MODEL = "bench"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class StreamOptions(msgspec.Struct):
    include_usage: bool = False


class Message(msgspec.Struct):
    role: str
    content: str


class ChatRequest(msgspec.Struct):
    model: str
    messages: list[Message]
    stream: bool = False
    stream_options: StreamOptions | None = None


class FakeOpenAI:
    """The ASGI application; holds the prepared bytes of its two answers."""

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(ChatRequest)
        words = [f" word{index}" for index in range(TOKENS)]
        usage = {"prompt_tokens": 90, "completion_tokens": TOKENS, "total_tokens": 90 + TOKENS}
        message = {"role": "assistant", "content": "".join(words), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        self._plain = _object("chat.completion", [choice], usage)
        deltas: list[dict[str, object]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": word} for word in words]
        chunks = [_chunk(delta, None) for delta in deltas] + [_chunk({}, "stop")]
        self._events = [_event(chunk) for chunk in chunks]
        self._usage_event = _event(_object("chat.completion.chunk", [], usage))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served")
        if scope["path"] == "/health":
            await _respond(send, 200, b"{}")
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        try:
            request = self._accept(scope, body)
        except (ValueError, msgspec.MsgspecError) as error:
            refusal = {"error": {"message": str(error), "type": "invalid_request_error", "param": None, "code": None}}
            await _respond(send, 400, msgspec.json.encode(refusal))
            return
        if request.stream:
            await self._stream(send, request)
        else:
            await _respond(send, 200, self._plain)

    def _accept(self, scope: Scope, body: bytes) -> ChatRequest:
        headers = dict(scope["headers"])
        if (scope["method"], scope["path"]) != ("POST", "/v1/chat/completions"):
            raise ValueError(f"no such route: {scope['method']} {scope['path']}")
        if headers.get(b"authorization") != b"Bearer " + UPSTREAM_KEY.encode():
            raise ValueError("wrong upstream key")
        if not headers.get(b"content-type", b"").startswith(b"application/json"):
            raise ValueError("not application/json")
        request = self._decoder.decode(body)
        if request.model != MODEL or not request.messages:
            raise ValueError(f"model {request.model!r} with {len(request.messages)} messages")
        return request

    async def _stream(self, send: Send, request: ChatRequest) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for event in self._events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
            # uvloop writes at the end of a turn: without this all events would leave in one piece.
            await asyncio.sleep(0)
        last = b"data: [DONE]\n\n"
        if request.stream_options is not None and request.stream_options.include_usage:
            last = self._usage_event + last
        await send({"type": "http.response.body", "body": last, "more_body": False})


def _object(kind: str, choices: list[dict[str, object]], usage: dict[str, int] | None) -> bytes:
    answer = {
        "id": "chatcmpl-0123456789abcdef01234567",
        "object": kind,
        "created": 1763800000,
        "model": MODEL,
        "choices": choices,
        "system_fingerprint": "fp_fake",
    }
    return msgspec.json.encode(answer | ({"usage": usage} if usage else {}))


def _chunk(delta: dict[str, object], finish_reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return _object("chat.completion.chunk", [choice], None)


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


async def _respond(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    parser = argparse.ArgumentParser(description="an instant OpenAI-compatible chat server")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    uvicorn.run(
        FakeOpenAI(),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
