"""Settings of the service `auth`. How keys are hashed is in `services.key_format`."""

from typing import Annotated, ClassVar

import msgspec

from services.settings import Group

Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class AuthSettings(Group, frozen=True, kw_only=True):
    """How long a looked-up key is believed, and what guessing may cost."""

    group: ClassVar[str] = "auth"

    ttl_s: Seconds = 60.0
    """Seconds a good key is believed without asking again. Changes are pushed and act at once; this bounds how long
    keys go on working while the service `keys`, which would push them, cannot be reached."""

    patience_s: Seconds = 0.75
    """Seconds without a sign of life after which the stream of changes counts as broken. With it everything that is
    remembered is forgotten as soon as there is a new stream, which begins with what was missed. Three times the pushing
    side's MODELPLANE_KEYS_BEAT_S."""

    unknown_ttl_s: Seconds = 5.0
    """Seconds an unknown key is refused without asking again."""

    cached_keys: Positive = 50_000
    """Most good keys remembered, about 2 KiB each; the least recently used gives way. One whose policies take more
    memory counts as several, so that this bounds the memory."""

    cached_unknown_keys: Positive = 10_000
    """Most unknown keys remembered."""

    unknown_per_s: Seconds = 50.0
    """Look-ups of unknown keys that are made per second, in the long run, for one source: an IPv4 address, or an IPv6
    network of 48 bits. Beyond it only keys are looked up that were good the last time, so that who guesses exhausts
    neither the database nor the patience of others. Behind a proxy, sources are told apart by
    MODELPLANE_GATEWAY_TRUSTED_PROXIES."""

    unknown_burst: Positive = 500
    """The same at once, and the most look-ups of keys that may be guesses under way together for one source."""

    all_unknown_per_s: Seconds = 500.0
    """The same per second for all sources together: what the database is to bear when many guess."""

    all_unknown_burst: Positive = 5_000
    """The same at once for all sources together."""

    touch_interval_s: Seconds = 10.0
    """Seconds between two reports of when keys were last used: the most that a crash makes them forget."""
