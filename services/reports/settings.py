"""Settings of the service `reports`."""

from typing import Annotated, ClassVar

import msgspec

from services.settings import Group


class ReportsSettings(Group, frozen=True, kw_only=True):
    """How much one question may ask of the database."""

    group: ClassVar[str] = "reports"

    statement_timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 8.0
    """Time that a query may take. Less than MODELPLANE_RPC_TIMEOUT_S, so that nobody waits for an answer that the
    database is still at work on after they have gone."""

    concurrent_queries: Annotated[int, msgspec.Meta(ge=1)] = 3
    """Reports that one process works on at a time; the others wait. Less than its connections to the database, which
    those who serve requests need too."""

    most_results: Annotated[int, msgspec.Meta(ge=1)] = 10_000
    """Results in one page. A page that would have more of them ends at an earlier bucket."""
