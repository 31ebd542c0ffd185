"""Settings of the service `notifications`."""

from typing import ClassVar

from services.settings import Group


class NotificationsSettings(Group, frozen=True, kw_only=True):
    """Who is told, and how."""

    group: ClassVar[str] = "notifications"

    webhook_secrets: str = ""
    """Secrets that webhooks are signed with, as the Standard Webhooks specification has them (`whsec_` and base64), by
    commas: each signs, so that a new one can be added before an old one goes. Default: webhooks are not signed."""

    allow_private_hosts: str = ""
    """Host names and IP addresses, by commas, that owners' webhooks may reach although they lie on private or loopback
    addresses. Whoever owns an organization can then send POST requests to them. Default: none."""

    email_hook_url: str | None = None
    """Where e-mails are posted to as JSON {to, subject, text}, for the operator's own mailer, on any address. Default:
    nobody is written to."""

    check_interval_s: float = 5.0
    """Time between two looks at what was spent."""

    timeout_s: float = 10.0
    """Longest time that one delivery takes."""

    most_wait_s: float = 600.0
    """Longest time between two attempts at a delivery that fails: each wait is twice the one before, from a second
    on."""

    max_concurrent: int = 4
    """Alerts that are delivered at a time."""

    events_url: str | None = None
    """Where usage is posted to as batches of CloudEvents, on any address. Default: nowhere."""

    events_authorization: str = ""
    """The `Authorization` header of these requests, for example `Bearer …`. Default: none."""

    events_source: str = "modelplane"
    """The events' `source`: a name of this installation."""

    events_batch: int = 500
    """Events in one request at most."""

    events_interval_s: float = 1.0
    """Time between two looks for new usage."""
