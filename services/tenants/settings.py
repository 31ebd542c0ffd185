"""Settings of the service `tenants`."""

from typing import ClassVar

from services.settings import Group


class TenantsSettings(Group, frozen=True, kw_only=True):
    """How usage tiers follow payments."""

    group: ClassVar[str] = "tenants"

    graduation_interval_s: float = 10.0
    """Time between two looks for organisations that their age alone raises to a higher usage tier; a payment
    raises one at once. Any number of processes may look: each organisation is raised once."""

    graduation_rows: int = 100
    """How many organisations one transaction raises at most, so that none holds up others for long."""
