"""Settings of a model replica: which model it serves, and how it keeps in touch with the platform."""

from typing import ClassVar

from services.settings import Group


class Settings(Group, frozen=True, kw_only=True):
    """What a model replica serves, and how it keeps in touch. `pools` sets the first three for those that it starts."""

    group: ClassVar[str] = "chat_inference"

    model: str = ""
    """Name of the model in the catalogue. Default: the first one there."""

    spec: str = ""
    """What the catalogue said of the model when this replica was wanted, as JSON: it may say something else by the
    time that the replica reads it, or be out of reach. Default: what the catalogue says."""

    replica_id: str = ""
    """Name of this replica, unique among all; a new one for each start. Default: drawn at random."""

    heartbeat_ms: int = 1000
    """Time between two reports of load and health to the router."""

    usage_grace_ms: int = 10_000
    """How long after the loss of a gateway's session the replica waits before it bills what that session used.
    A gateway that is alive bills by itself well within that time, and what it saw is what its client got."""

    usage_attempts: int = 10
    """How often the replica tries to hand usage to billing, with pauses from half a second to ten seconds."""

    outbox_bytes: int = 4 * 1024 * 1024
    """Text that may wait for a gateway that does not read; beyond it the session and its requests are ended."""

    grammar_bytes: int = 256 * 1024
    """Longest text of a schema or of a structural tag that an answer may be held to."""

    grammar_cpu_s: int = 5
    """Processor time that making a grammar of such a text may take. Longer ones are refused."""

    grammar_memory_bytes: int = 512 * 1024 * 1024
    """Memory that making a grammar may take. Larger ones are refused."""

    grammar_timeout_ms: int = 20_000
    """Longest wait for a grammar, whatever keeps the machine busy; then the request fails as overloaded."""
