"""Services that write down when they are built, drained and closed; and a small table of three of them.

`tokenizer` needs nothing, `chat_inference` needs it, and `gateway` needs both.
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import ModuleType

from services.compose import Context
from services.faults import Unavailable
from services.graph import SERVICES, Service
from tests.fakes.probes import ProbeInference, ProbeTokenizer

MODULE = "tests.fakes.journal_builds"
NEEDS = {"tokenizer": (), "chat_inference": ("tokenizer",), "gateway": ("tokenizer", "chat_inference")}


class JournalTokenizer(ProbeTokenizer):
    """A tokenizer whose life is written down."""

    def __init__(self, life: "Life") -> None:
        super().__init__()
        self.drain = life.drain
        self.ping = life.ping


class JournalInference(ProbeInference):
    """A replica whose life is written down."""

    def __init__(self, life: "Life") -> None:
        super().__init__()
        self.drain = life.drain
        self.ping = life.ping


class Life:
    """What happens to one service."""

    def __init__(self, name: str, journal: "Journal") -> None:
        self.name = name
        self._journal = journal

    async def drain(self) -> None:
        self._journal.write(f"drain {self.name}")
        if on_drain := self._journal.on_drain.get(self.name):
            await on_drain()
            self._journal.write(f"drained {self.name}")

    async def ping(self) -> None:
        if self.name in self._journal.sick:
            raise Unavailable("not_ready", f"{self.name} is sick")


class Journal:
    """The order of events, and what should happen in between."""

    def __init__(self, echo: bool = False) -> None:
        self.entries: list[str] = []
        self.contexts: dict[str, Context] = {}
        self.sick: set[str] = set()
        # Called while a service is built, or drained.
        self.on_build: dict[str, Callable[[Context], Awaitable[None]]] = {}
        self.on_drain: dict[str, Callable[[], Awaitable[object]]] = {}
        self._echo = echo

    def write(self, entry: str) -> None:
        self.entries.append(entry)
        if self._echo:
            print(entry, flush=True)

    def table(self) -> Mapping[str, Service]:
        """The rows, with builds that write here."""
        module = ModuleType(MODULE)
        for name in NEEDS:
            setattr(module, name, self._build(name))
        sys.modules[MODULE] = module
        return {
            name: Service(f"{MODULE}:{name}", SERVICES[name].contract, needs=needs) for name, needs in NEEDS.items()
        }

    def _build(self, name: str) -> Callable[[Context], AbstractAsyncContextManager[object]]:
        @asynccontextmanager
        async def build(context: Context) -> AsyncIterator[object]:
            life = Life(name, self)
            services = {"tokenizer": JournalTokenizer, "chat_inference": JournalInference}
            self.write(f"open {name}")
            self.contexts[name] = context
            try:
                if on_build := self.on_build.get(name):
                    await on_build(context)
                yield services[name](life) if name in services else life
            finally:
                self.write(f"close {name}")

        return build
