"""Settings of the service `completions`."""

from typing import ClassVar

from services.settings import Group


class CompletionsSettings(Group, frozen=True, kw_only=True):
    """How much is kept, and for how long."""

    group: ClassVar[str] = "completions"

    retention_days: float = 30.0
    """How long a stored completion is kept."""

    idempotency_hours: float = 24.0
    """How long a request with an idempotency key gets the answer of the first one with it."""

    max_object_bytes: int = 40 * 1024 * 1024
    """Largest completion, together with the messages that it answers, and largest answer that is kept; room for a
    request body of the greatest length and its answer. What is larger is not stored."""

    max_page_bytes: int = 16 * 1024 * 1024
    """A page of a list ends early when its completions exceed this; it has at least one. Together with one object
    this must fit into MODELPLANE_RPC_MAX_MESSAGE_BYTES."""

    clean_interval_s: float = 600.0
    """Time between two removals of what is too old."""

    clean_rows: int = 500
    """How many rows one transaction of a removal takes at most, so that none holds up others for long."""
