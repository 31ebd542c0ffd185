"""Settings of the gateway."""

from typing import ClassVar

from services.settings import Group


class GatewaySettings(Group, frozen=True, kw_only=True):
    """What the HTTP edge admits and how long it waits. Host and port are the platform's own settings."""

    group: ClassVar[str] = "gateway"

    tls: bool = False
    """Whether the HTTP port speaks TLS with the certificate of MODELPLANE_RPC_TLS_FOLDER, and only to those who have
    one of the same authority: the proxy in front."""

    max_body_bytes: int = 32 * 1024 * 1024
    """Largest request body; a larger one is refused with 413. The largest image (20 MiB) takes 27 MiB as a data URL, a
    prompt of a million tokens about 4."""

    payment_webhook_secrets: str = ""
    """Secrets that a payment provider signs with what it sends to POST /v1/webhooks/payments, `whsec_` and base64, by
    commas: while one takes the place of another, both count. Default: there is no such endpoint."""

    max_images_bytes: int = 48 * 1024 * 1024
    """Most bytes that the images of one request have together: they travel to the replica in one message, for whose
    size MODELPLANE_RPC_MAX_MESSAGE_BYTES is the bound."""

    trusted_proxies: tuple[str, ...] = ()
    """CIDR blocks of the proxies in front of the gateway, whose X-Forwarded-For says where a call comes from. Only
    that of these is believed: a project may be restricted to addresses, and anybody can write a header."""

    request_timeout_s: float = 600.0
    """Longest time from a request's arrival to its last token; OpenAI's SDKs give up after as long."""

    keep_alive_s: float = 75.0
    """How long an idle connection stays open: longer than clients keep theirs, so that they close first."""

    keep_alive_comment_s: float = 15.0
    """After how long without a token a stream gets a comment, so that no proxy takes it for dead."""

    write_timeout_s: float = 30.0
    """How long a client may leave what was sent to it unread before its connection is closed (Linux)."""

    max_waiting_deltas: int = 2048
    """Pieces of one stream that may wait for a slow client; beyond that its request is aborted."""

    max_lost_replicas: int = 2
    """How often a request whose replica was lost before its first token is placed again."""

    abort_grace_s: float = 5.0
    """How long an aborted request waits for the engine's final usage before it is made up from what was seen."""

    checkpoint_interval_s: float = 0.25
    """How often what a running stream has used is told, so that a crash makes at most that much of it free."""

    settle_timeout_s: float = 30.0
    """How long settling and recording one request's usage is tried."""

    store_timeout_s: float = 30.0
    """How long storing one completion is tried after its answer."""

    max_storing_bytes: int = 128 * 1024 * 1024
    """Completions that may wait to be stored; beyond that they are not."""

    max_replay_bytes: int = 8 * 1024 * 1024
    """Largest answer that is kept for repetitions with the same Idempotency-Key."""

    session_idle_s: float = 60.0
    """How long an unused session to a replica stays open."""
