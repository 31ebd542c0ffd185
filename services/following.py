"""Gives a process's catalogue what its files say now, without a restart.

The contents are compared, not times or events: that notices an editor's rename, a link that Kubernetes moves and a
shared folder alike. What it keeps true: contents are taken once they have been the same for a moment, so that half
a file is not; what cannot be used is said once in the log and counted, and the catalogue stays as it was.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from prometheus_client import Counter, Gauge

from services import telemetry
from services.catalog import Catalog, read
from services.settings import PlatformSettings, SettingsError

log = telemetry.logger(__name__)

CHANGES = Counter(
    "modelplane_catalog_changes", "Changes of the configured files, by whether they were taken: yes or no", ["taken"]
)
MODELS = Gauge("modelplane_catalog_models", "Configured models that this process knows")

# For so long contents must not change before they are taken.
SETTLED_S = 0.1

Contents = Mapping[Path, bytes]


@asynccontextmanager
async def following(catalog: Catalog, settings: PlatformSettings) -> AsyncIterator[None]:
    """Keeps the catalogue as its files have it while entered."""
    MODELS.set_function(lambda: sum(1 for _ in catalog))
    if settings.config is None or settings.config_poll_s <= 0:
        yield
        return
    task = asyncio.create_task(_follow(catalog, settings.config, settings.config_poll_s), name="catalogue")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _follow(catalog: Catalog, config: Path, every_s: float) -> None:
    seen: Contents | str | None = None
    while True:
        found = await asyncio.to_thread(_contents, config)
        if found != seen:
            await asyncio.sleep(min(SETTLED_S, every_s))
            if found != await asyncio.to_thread(_contents, config):
                continue
            # What was read at the start may be older than what is found first.
            _take(catalog, config, found, first=seen is None)
            seen = found
        await asyncio.sleep(every_s)


def _contents(config: Path) -> Contents | str:
    """What the files contain, or why they cannot be read."""
    try:
        return read(config)
    except SettingsError as error:
        return str(error)


def _take(catalog: Catalog, config: Path, found: Contents | str, first: bool) -> None:
    try:
        if isinstance(found, str):
            raise SettingsError(found)
        other = Catalog.parse(found, config)
    except SettingsError as error:
        CHANGES.labels("no").inc()
        log.error("the configured models cannot be used; the ones before are kept", error=str(error))
        return
    before = {spec.name: spec for spec in catalog}
    if first and list(other) == list(catalog) and other.tables == catalog.tables:
        return
    catalog.replace(other)
    after = {spec.name: spec for spec in catalog}
    CHANGES.labels("yes").inc()
    log.info(
        "the configured models have changed",
        added=sorted(after.keys() - before.keys()),
        removed=sorted(before.keys() - after.keys()),
        changed=sorted(name for name in before.keys() & after.keys() if before[name] is not after[name]),
    )
