"""Settings of the service `auth`."""

from typing import ClassVar

from services.settings import Group


class Settings(Group, frozen=True, kw_only=True):
    """How keys are kept and how long a looked-up key is believed."""

    group: ClassVar[str] = "auth"

    pepper: str = ""
    """Secret that is mixed into the hash of every key, the same in every process. With it, a stolen database
    cannot even confirm a key. Changing it invalidates all keys. Empty is safe: keys are 208 random bits."""

    ttl_s: float = 60.0
    """Seconds a good key is believed without asking the database again. A revocation is pushed and acts at
    once; this bounds it when the push cannot get through."""

    unknown_ttl_s: float = 5.0
    """Seconds an unknown key is refused without asking the database again."""

    cached_keys: int = 50_000
    """Most good keys remembered, about 1 KiB each; the least recently used gives way."""

    cached_unknown_keys: int = 10_000
    """Most unknown keys remembered."""
