"""Mixed load that remembers what every client got: streams, answers in one piece, clients that go away, refusals."""

import asyncio
import contextlib
import random
from typing import Any, NamedTuple

import httpx
import msgspec

from tests.faults.fleet import MODEL

URL = "/v1/chat/completions"


class Seen(NamedTuple):
    """What a client got of one request: pieces of the answer, and the usage when it was told."""

    request_id: str
    pieces: int
    output_tokens: int | None


class Load:
    """Clients of the gateways at `urls`. `seen` are the requests of which somebody got something."""

    def __init__(self, urls: tuple[str, ...], key: str, limited_key: str, chance: random.Random) -> None:
        self._urls = urls
        self._keys = (key, limited_key)
        self._chance = chance
        self._stopping = False
        self.seen: list[Seen] = []
        self.statuses: dict[int, int] = {}

    async def run(self, clients: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._client())

    def stop(self) -> None:
        self._stopping = True

    async def _client(self) -> None:
        async with httpx.AsyncClient(timeout=60) as http:
            while not self._stopping:
                ask = self._chance.choice((self._stream, self._stream, self._leave, self._whole, self._refused))
                url = self._chance.choice(self._urls) + URL
                with contextlib.suppress(httpx.TransportError):
                    await ask(http, url)
                # A gateway that is down refuses at once.
                await asyncio.sleep(0.02)

    def _body(self, **fields: Any) -> dict[str, Any]:
        words = " ".join(["word"] * self._chance.randrange(1, 40))
        return {"model": MODEL, "messages": [{"role": "user", "content": words}], **fields}

    def _headers(self, key: str) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"}

    async def _stream(self, http: httpx.AsyncClient, url: str, most_pieces: int | None = None) -> None:
        body = self._body(stream=True, stream_options={"include_usage": True, "include_obfuscation": False})
        pieces, tokens, request_id = 0, None, ""
        try:
            async with http.stream("POST", url, json=body, headers=self._headers(self._keys[0])) as response:
                self._count(response)
                request_id = response.headers.get("x-request-id", "")
                async for line in response.aiter_lines():
                    if not line.startswith("data: {"):
                        continue
                    chunk = msgspec.json.decode(line[6:])
                    if chunk.get("usage"):
                        tokens = chunk["usage"]["completion_tokens"]
                    pieces += sum(bool(choice["delta"].get("content")) for choice in chunk.get("choices", ()))
                    if pieces == most_pieces:
                        break
        finally:
            if pieces:
                self.seen.append(Seen(request_id, pieces, tokens))

    async def _leave(self, http: httpx.AsyncClient, url: str) -> None:
        await self._stream(http, url, self._chance.randrange(1, 50))

    async def _whole(self, http: httpx.AsyncClient, url: str) -> None:
        response = await http.post(url, json=self._body(max_tokens=30), headers=self._headers(self._keys[0]))
        self._count(response)
        if response.status_code == 200:
            tokens = response.json()["usage"]["completion_tokens"]
            self.seen.append(Seen(response.headers["x-request-id"], tokens, tokens))

    async def _refused(self, http: httpx.AsyncClient, url: str) -> None:
        """By a limit, or for what it asks."""
        fields = self._chance.choice(({}, {"temperature": 9}))
        self._count(await http.post(url, json=self._body(**fields), headers=self._headers(self._keys[1])))

    def _count(self, response: httpx.Response) -> None:
        self.statuses[response.status_code] = self.statuses.get(response.status_code, 0) + 1
