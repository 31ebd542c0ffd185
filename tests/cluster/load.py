"""Clients that go on calling while something happens to the cluster, and count what they lost.

They are the official SDK with its own defaults, retries included: what fails here fails for people. Streams and whole
answers take turns; an answer counts when it is complete and has its usage.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx2
import openai


@dataclass
class Result:
    """Grows while the load runs."""

    answered: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0

    @property
    def failed(self) -> int:
        return self.failures.total()


class Clients:
    """Threads that each have a client of their own, as many users do."""

    def __init__(self, base_url: str, key: str, model: str, authority: str | None) -> None:
        self.result = Result()
        self._base_url, self._key, self._model, self._authority = base_url, key, model, authority
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
                raise TimeoutError(
                    f"{self.result.answered} of {wanted} answers; failures: {dict(self.result.failures)}"
                )
            time.sleep(0.05)

    def stop(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(timeout=120)

    def _call_again_and_again(self, number: int) -> None:
        verify: str | bool = self._authority or True
        with (
            httpx2.Client(verify=verify, timeout=60, trust_env=False) as http,
            openai.OpenAI(base_url=self._base_url, api_key=self._key, http_client=http) as client,
        ):
            turn = number
            while not self._ending.is_set():
                started = time.monotonic()
                failure = None
                try:
                    (self._stream if turn % 2 else self._ask)(client)
                except Exception as error:
                    failure = f"{type(error).__name__}: {str(error)[:200]}"
                turn += 1
                with self._lock:
                    self.result.slowest_s = max(self.result.slowest_s, time.monotonic() - started)
                    if failure is None:
                        self.result.answered += 1
                    else:
                        self.result.failures[failure] += 1

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
            for chunk in chunks:
                usage = chunk.usage or usage
                reason = (chunk.choices and chunk.choices[0].finish_reason) or reason
        if not usage or not reason:
            raise AssertionError("a stream without usage or an end")


@contextmanager
def load(base_url: str, key: str, model: str, *, clients: int = 8, authority: str | None = None) -> Iterator[Clients]:
    """Clients that call inside, and have had their last answers afterwards. `authority` is a file for TLS."""
    calling = Clients(base_url, key, model, authority)
    calling.start(clients)
    try:
        yield calling
    finally:
        calling.stop()
        result = calling.result
        print(
            f"[load] {result.answered} answered, {result.failed} failed {dict(result.failures) or ''}, "
            f"slowest {result.slowest_s:.1f} s",
            flush=True,
        )
