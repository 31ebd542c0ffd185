"""Settings of downloads."""

from typing import ClassVar

from services.settings import Group


class DownloadSettings(Group, frozen=True, kw_only=True):
    """What the URLs in a client's request may make the gateway ask for.

    Private, loopback and otherwise special addresses are out of reach, also by redirects.
    """

    group: ClassVar[str] = "downloads"

    allow_http: bool = False
    """Whether `http://` URLs are served too. Anyone on the way can read and change what they bring."""

    ports: str = "80,443"
    """TCP ports that a URL may name, by commas: others belong to services that do not expect strangers."""

    allow_private_hosts: str = ""
    """Host names and IP addresses, by commas, that may lie on private or loopback addresses: an intranet's image
    server. Whoever has a key can then send GET requests to them. Default: none."""

    max_image_bytes: int = 20 * 1024 * 1024
    """Largest image that is downloaded, or decoded from a data URL."""

    timeout_s: float = 10.0
    """Longest time that one download takes, with its redirects."""

    max_redirects: int = 3
    """Redirects that one download follows; each must lead to what the client could have named itself."""

    max_concurrent: int = 32
    """Downloads at a time, each of which may hold `max_image_bytes`; more wait."""
