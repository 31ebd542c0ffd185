"""Lists what was booked for an organisation, the newest first, a page at a time."""

import base64
import binascii
from typing import Final

import msgspec

from modelplane.ledger.v1 import ledger_pb2 as pb
from services import asked
from services.faults import InvalidRequest
from services.ledger import lookups
from services.ledger.store import LedgerStore
from services.ledger.store.credits import kept_id
from services.ledger.store.usage import Cursor
from services.storage.postings import Entry

MOST: Final = 1000
# Later than everything.
START: Final = Cursor(2**62, "", "")


class Postings:
    """The contract's part about postings."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store

    async def list_postings(self, request: pb.ListPostingsRequest, /) -> pb.ListPostingsResponse:
        limit = asked.number(request.limit, 1, MOST, "limit")
        before = _cursor(request.page)
        named = request.transaction_id
        names = [named, kept_id(request.organization_id, named)] if named else []
        async with self._store.transaction() as records:
            organization = await lookups.organization(records, request.organization_id)
            if asked.has_nul(named):
                return pb.ListPostingsResponse()
            found = await records.usage.postings(organization.id, names, before, limit + 1, usage=request.usage)
        shown = found[:limit]
        return pb.ListPostingsResponse(
            postings=[_shown(entry) for entry in shown], next_page=_page(shown[-1]) if len(found) > limit else ""
        )


def _shown(entry: Entry) -> pb.Posting:
    return pb.Posting(
        transaction_id=entry.transaction_id.removesuffix(f"@{entry.organization_id}"),
        line=entry.line,
        project_id=entry.project_id,
        key_id=entry.key_id,
        model=entry.model,
        debit=entry.debit,
        credit=entry.credit,
        nanodollars=entry.nanodollars,
        occurred_at_ms=entry.occurred_at_ms,
    )


def _page(entry: Entry) -> str:
    cursor = Cursor(entry.occurred_at_ms, entry.transaction_id, entry.line)
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode()


def _cursor(page: str) -> Cursor:
    if not page:
        return START
    try:
        cursor = msgspec.json.decode(base64.urlsafe_b64decode(page), type=Cursor)
    except (binascii.Error, msgspec.DecodeError, ValueError):
        cursor = None
    if cursor is None or asked.has_nul(*cursor[1:]) or not 0 <= cursor.occurred_at_ms <= START.occurred_at_ms:
        raise InvalidRequest("invalid_value", "Invalid 'page': it is not one of this list.", param="page")
    return cursor
