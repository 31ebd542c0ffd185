"""Clients that go on calling while something happens to the cluster, and count what they lost.

They are the official SDK with its own defaults, retries included: what fails here fails for people. Streams and whole
answers take turns; an answer counts when it is complete and has its usage. A stream that began and broke is counted by
itself: no retry can save what has been shown.
"""

import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import httpx2
import openai


class BrokenStreamError(Exception):
    """A stream ended early after it had begun."""


class Edge(NamedTuple):
    """Where clients call, with which key, and whom they trust (a PEM text; empty: no TLS)."""

    url: str
    key: str
    authority: str = ""
    name: str = ""
    """What the certificate must be for, where the address is not the name."""

    @contextmanager
    def client(self) -> Iterator[openai.OpenAI]:
        """The official SDK, which asks nobody for the address."""
        verify = ssl.create_default_context(cadata=self.authority) if self.authority else True
        hooks = {"request": [self._expect]} if self.name else {}
        with (
            httpx2.Client(verify=verify, timeout=60, trust_env=False, event_hooks=hooks) as http,
            openai.OpenAI(base_url=self.url, api_key=self.key, http_client=http) as client,
        ):
            yield client

    def _expect(self, request: httpx2.Request) -> None:
        request.extensions["sni_hostname"] = self.name


@dataclass
class Result:
    """Grows while the load runs."""

    answered: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.answered} answered, {self.failures.total()} failed {dict(self.failures) or ''}, "
            f"{self.broken.total()} streams broken {dict(self.broken) or ''}, slowest {self.slowest_s:.1f} s"
        )


class Clients:
    """Threads that each have a client of their own, as many users do. `pause_s`: between two calls of one."""

    def __init__(self, edge: Edge, model: str, pause_s: float = 0.0) -> None:
        self.result = Result()
        self._edge, self._model, self._pause_s = edge, model, pause_s
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self, number: int) -> None:
        for n in range(number):
            thread = threading.Thread(target=self._call_again_and_again, args=(n,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait_for(self, answers: int, timeout_s: float = 60.0) -> None:
        """Returns after so many more answers. Raises TimeoutError."""
        wanted = self.result.answered + answers
        deadline = time.monotonic() + timeout_s
        while self.result.answered < wanted:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{wanted} answers wanted: {self.result}")
            time.sleep(0.05)

    def stop(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(timeout=120)

    def _call_again_and_again(self, number: int) -> None:
        with self._edge.client() as client:
            turn = number
            while not self._ending.is_set():
                started = time.monotonic()
                lost = None
                try:
                    (self._stream if turn % 2 else self._ask)(client)
                except BrokenStreamError as error:
                    lost = self.result.broken, _described(error.__cause__ or error)
                except Exception as error:
                    lost = self.result.failures, _described(error)
                # Every fourth only asks, on a connection that is kept: the SDK closes that of a stream.
                turn += 1 if number % 4 else 2
                with self._lock:
                    self.result.slowest_s = max(self.result.slowest_s, time.monotonic() - started)
                    if lost is None:
                        self.result.answered += 1
                    else:
                        counter, what = lost
                        counter[what] += 1
                self._ending.wait(self._pause_s)

    def _ask(self, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(
            model=self._model, messages=[{"role": "user", "content": "Say something."}], max_tokens=20
        )
        if not answer.usage or not answer.choices[0].finish_reason:
            raise AssertionError("an answer without usage or an end")

    def _stream(self, client: openai.OpenAI) -> None:
        usage = reason = None
        with client.chat.completions.create(
            model=self._model,
            messages=[{"role": "user", "content": "Say something."}],
            max_tokens=20,
            stream=True,
            stream_options={"include_usage": True},
        ) as chunks:
            try:
                for chunk in chunks:
                    usage = chunk.usage or usage
                    reason = (chunk.choices and chunk.choices[0].finish_reason) or reason
            except (openai.APIError, httpx2.TransportError) as error:
                raise BrokenStreamError from error
        if not usage or not reason:
            raise BrokenStreamError("a stream without usage or an end")


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


@contextmanager
def load(edge: Edge, model: str, *, clients: int = 8, pause_s: float = 0.0) -> Iterator[Clients]:
    """Clients that call inside, and have had their last answers afterwards."""
    calling = Clients(edge, model, pause_s)
    calling.start(clients)
    try:
        yield calling
    finally:
        calling.stop()
        print(f"[load] {calling.result}", flush=True)
