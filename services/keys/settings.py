"""Settings of the service `keys`. How keys are hashed is in `services.key_format`."""

from typing import Annotated, ClassVar

import msgspec

from services.settings import Group


class KeysSettings(Group, frozen=True, kw_only=True):
    """How changes of keys are passed on."""

    group: ClassVar[str] = "keys"

    beat_s: Annotated[float, msgspec.Meta(gt=0)] = 0.25
    """Seconds between two signs of life to every watcher. A watcher that misses a few believes nothing any more that it
    remembers, so this and its patience bound how long a revoked key can go on."""

    waiting_changes: Annotated[int, msgspec.Meta(ge=1)] = 1000
    """Most changes that wait for a slow watcher; one more, and it is told to forget everything instead."""

    database_wait_s: Annotated[float, msgspec.Meta(gt=0)] = 0.3
    """Seconds that a revocation waits for the database. Then it takes effect without it and is written down later, so
    that a database that hangs does not keep a revoked key alive."""

    retry_s: Annotated[float, msgspec.Meta(gt=0)] = 0.5
    """Seconds between attempts to write down the revocations that the database could not take."""
