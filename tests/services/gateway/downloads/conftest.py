"""One authority for all tests of downloads, and a downloader that reaches a small internet."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from services.gateway.downloads import Downloader, DownloadSettings, Fetched
from tests.fakes.internet import Authority, Internet, Names, Web

PUBLIC = "93.184.215.14"
OTHER = "2606:2800:21f:cb07::1"
IMAGES = ("image/png", "image/jpeg")


class World(NamedTuple):
    """A downloader, the server that PUBLIC and OTHER lead to, and what stands between."""

    downloader: Downloader
    web: Web
    internet: Internet
    names: Names

    async def fetch(self, url: str, max_bytes: int = 1000, timeout_s: float = 5.0) -> Fetched:
        return await self.downloader.fetch(url, max_bytes=max_bytes, timeout_s=timeout_s, content_types=IMAGES)


class Worlds:
    """Makes worlds. Each has an HTTPS server that knows `images.example` and `other.example`."""

    def __init__(self, authority: Authority, folder: Path) -> None:
        self._authority = authority
        self._folder = folder

    @asynccontextmanager
    async def open(
        self,
        settings: DownloadSettings | None = None,
        names: Mapping[str, Sequence[Sequence[str]]] | None = None,
        tls: bool = True,
    ) -> AsyncIterator[World]:
        known = Names(names if names is not None else {"images.example": [[PUBLIC]], "other.example": [[OTHER]]})
        context = self._authority.server(self._folder, ["images.example", "other.example", PUBLIC]) if tls else None
        async with Web().running(context) as web:
            internet = Internet({PUBLIC: web, OTHER: web})
            downloader = Downloader(
                settings or DownloadSettings(), resolve=known.resolve, tls=self._authority.client, network=internet
            )
            try:
                yield World(downloader, web, internet, known)
            finally:
                downloader.close()


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def worlds(authority: Authority, tmp_path: Path) -> Worlds:
    return Worlds(authority, tmp_path)
