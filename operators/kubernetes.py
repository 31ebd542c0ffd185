"""The Kubernetes API, as far as operators need it: a few verbs over HTTP.

A generated client of the whole API would take 70 MiB and three seconds of every start. The token is read for each
request, as the kubelet renews it.
"""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp

MERGE: Final = "application/merge-patch+json"
WATCH_S: Final = 300
"""After which the API ends a watch."""


class ApiError(Exception):
    """The API did not answer (status 0), or not with what was asked for."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """Asks as the service account whose folder is given."""

    def __init__(self, session: aiohttp.ClientSession, server: str, account: Path, timeout_s: float) -> None:
        self._session = session
        self._server = server.rstrip("/")
        self._account = account
        self._timeout_s = timeout_s
        self._trust = ssl.create_default_context(cafile=str(account / "ca.crt"))
        self._refused_since_s: float | None = None

    def refused_s(self) -> float:
        """Seconds for which it has known nothing but refusals of who asks; 0 while it is let in."""
        return 0.0 if self._refused_since_s is None else time.monotonic() - self._refused_since_s

    async def token(self) -> str:
        return (await asyncio.to_thread((self._account / "token").read_text)).strip()

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        return await self.call("GET", f"{path}?{urlencode(query)}" if query else path)

    async def watch(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """Everything that there is, then every change, until the API ends it. Raises ApiError."""
        timeout = aiohttp.ClientTimeout(sock_connect=self._timeout_s, sock_read=WATCH_S + self._timeout_s)
        query = urlencode({"watch": "1", "timeoutSeconds": str(WATCH_S)})
        try:
            headers = {"authorization": f"Bearer {await self.token()}"}
            async with self._session.get(
                f"{self._server}{path}?{query}", headers=headers, ssl=self._trust, timeout=timeout, read_bufsize=2**22
            ) as response:
                if response.status != 200:
                    raise ApiError(response.status, f"watch {path}: {response.reason}")
                async for line in response.content:
                    yield json.loads(line)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise ApiError(0, f"the Kubernetes API does not answer: {error or type(error).__name__}") from error

    async def patch(self, path: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Merges changes into an object; where they name a resourceVersion, an object that has another is a 409."""
        return await self.call("PATCH", path, changes, MERGE)

    async def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, kind: str = "application/json"
    ) -> dict[str, Any]:
        """Raises ApiError."""
        try:
            headers = {"authorization": f"Bearer {await self.token()}", "content-type": kind}
            data = None if body is None else json.dumps(body)
            async with self._session.request(
                method, f"{self._server}{path}", data=data, headers=headers, ssl=self._trust
            ) as response:
                status, answer = response.status, await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApiError(0, f"the Kubernetes API does not answer: {error or type(error).__name__}") from error
        if status == 401:
            self._refused_since_s = self._refused_since_s or time.monotonic()
        else:
            self._refused_since_s = None
        try:
            document: dict[str, Any] = json.loads(answer)
        except ValueError:
            document = {"message": answer[:300].decode(errors="replace")}
        if not 200 <= status < 300:
            raise ApiError(status, f"{method} {path.partition('?')[0]} answers {status}: {document.get('message', '')}")
        return document


@asynccontextmanager
async def connected(server: str, account: Path, timeout_s: float) -> AsyncIterator[Api]:
    """An Api for the length of a block."""
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
        yield Api(session, server, account, timeout_s)
