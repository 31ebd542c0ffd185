"""What a call is about, or the fault that says that it is not there; and the rules of what it may say."""

from typing import Final

from services import asked
from services.faults import InvalidRequest, NotFound
from services.ledger.store import Records
from services.ledger.store.records import Organization

# A thousand million dollars: the sums of many such amounts still fit 63 bits.
MOST_NANODOLLARS: Final = 10**18
# The last second of the year 9999.
LAST_SECOND: Final = 253_402_300_799


async def organization(records: Records, organization_id: str) -> Organization:
    """Raises NotFound."""
    found = None if asked.has_nul(organization_id) else await records.organization(organization_id)
    if found is None:
        raise NotFound("organization_not_found", f"No such organization: '{organization_id}'.", param="organization_id")
    return found


def name(text: str, param: str) -> str:
    """1 to 256 characters, not all of them white space. Raises InvalidRequest."""
    if not text.strip():
        raise InvalidRequest("empty_string", f"Invalid '{param}': it must not be empty.", param=param)
    return asked.line(text, param)


def expiry(expires_at: int, now_s: int) -> int:
    """A time in the future, or 0 for never. Raises InvalidRequest."""
    return expires_at and asked.number(expires_at, now_s + 1, LAST_SECOND, "expires_at")
