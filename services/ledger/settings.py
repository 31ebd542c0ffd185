"""Settings of the service `ledger`."""

from typing import Annotated, ClassVar

import msgspec

from services.settings import Group


class LedgerSettings(Group, frozen=True, kw_only=True):
    """When invoices are issued and credits expire."""

    group: ClassVar[str] = "ledger"

    invoice_grace_s: Annotated[float, msgspec.Meta(ge=0)] = 3600.0
    """Time between the end of a month, UTC, and its invoices, so that what was used in its last minutes is in the
    ledger. What comes later is on the next invoice."""

    sweep_interval_s: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    """Time between two looks for credits that have expired and invoices that are due. Expired credits are not used
    from the moment on at which they expire; this is when they are booked as expired."""
