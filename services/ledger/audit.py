"""Proves that what was used is what was billed, or says where it is not.

Kept true: nothing is believed that can be worked out. Each record is priced again by `services.pricing` with the price
that was in force when it began, and what should have been booked is compared with what was, column by column; then
everything that is kept beside the postings is compared with what it is made of. An audit changes nothing.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Final, NamedTuple

from modelplane.ledger.v1.ledger_pb2 import AuditRequest, AuditResponse, Finding
from modelplane.usage.v1.usage_pb2 import Usage
from services import telemetry
from services.ledger.store.audit import RECORD, UNIT, AuditStore, Row
from services.ledger.store.checks import CHECKS
from services.pricing import cost
from services.pricing.book import Book

# Of each kind; beyond them they are counted.
MOST_FINDINGS: Final = 100
# Rows between two turns of the event loop: other calls are served beside an audit.
PAUSE_ROWS: Final = 50
# Further than any clock.
FOREVER_MS: Final = 2**62
# The price of what was used before there were prices: it was free.
BEFORE_PRICES: Final = 0

log = telemetry.logger(__name__)


class Booked(NamedTuple):
    """A posting of usage, in the order in which the store joins its columns."""

    line: str
    debit: str
    credit: str
    nanodollars: str
    quantity: str
    organization_id: str
    project_id: str
    key_id: str
    model: str
    occurred_at_ms: str

    @property
    def accounts(self) -> str:
        return f"from {self.credit} to {self.debit} of {self.organization_id} {self.project_id} {self.key_id}"

    @property
    def amount(self) -> str:
        return f"{self.nanodollars} for {self.quantity}"

    @property
    def net(self) -> int:
        return int(self.nanodollars) if self.debit == "receivable" else -int(self.nanodollars)


class Auditor:
    """Audits on behalf of the service `ledger`."""

    def __init__(self, store: AuditStore) -> None:
        self._store = store

    async def audit(self, request: AuditRequest, /) -> AsyncGenerator[AuditResponse, None]:
        """As the contract has it: how far it is, findings as they come, and at last the sums.

        Fault: database_unavailable.
        """
        from_ms = getattr(request, "from") * 1000
        until_ms = request.until * 1000 if request.until else FOREVER_MS
        async with self._store.reading() as reading:
            audit = Audit(await reading.book())
            for found in (reading.records(from_ms, until_ms), reading.orphans(from_ms, until_ms)):
                async with aclosing(found) as batches:
                    async for rows in batches:
                        for index, row in enumerate(rows):
                            audit.look_at(row)
                            if index % PAUSE_ROWS == 0:
                                await asyncio.sleep(0)
                        yield AuditResponse(records=audit.records, findings=audit.take())
            for check in CHECKS:
                total, differences = await reading.differences(check, MOST_FINDINGS)
                audit.total += total
                findings = [Finding(kind=check.kind, **difference._asdict()) for difference in differences]
                yield AuditResponse(records=audit.records, findings=findings)
        if audit.total:
            log.error("the ledger does not add up", findings=audit.total)
        yield AuditResponse(
            records=audit.records,
            done=True,
            usage_nanodollars=audit.usage_nanodollars,
            billed_nanodollars=audit.billed_nanodollars,
            findings_total=audit.total,
        )


class Audit:
    """The postings of one audit: pure, so that a row is all that it knows."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._kept: Counter[str] = Counter()
        self._findings: list[Finding] = []
        self.records = 0
        self.total = 0
        self.usage_nanodollars = 0
        self.billed_nanodollars = 0

    def take(self) -> list[Finding]:
        """What was found since it was asked for the last time."""
        taken, self._findings = self._findings, []
        return taken

    def look_at(self, row: Row) -> None:
        """Compares a record with its postings."""
        if row.usage is None:
            for booked in _booked(row.postings):
                self.billed_nanodollars += booked.net
                what = f"{booked.line}: {booked.amount} is billed, and there is no record of the request"
                self._found("orphan_posting", booked.organization_id, row.transaction_id, what)
            return
        self.records += 1
        usage = row.usage
        lines = self._lines(usage, row)
        total = sum(line.nanodollars for line in lines)
        self.usage_nanodollars += total
        expected = _expected(usage, lines)
        if expected == row.postings:
            self.billed_nanodollars += total
        else:
            self._compare(usage, _booked(expected), _booked(row.postings))
        if row.nanodollars != total:
            what = f"the record says that it cost {row.nanodollars}; it cost {total}"
            self._found_of(usage, "wrong_amount", what)

    def _lines(self, usage: Usage, row: Row) -> Sequence[cost.Line]:
        """What the record costs; nothing while it has no price."""
        if row.price_id == BEFORE_PRICES:
            return ()
        price = self._book.price(usage.model, usage.started_at_ms)
        try:
            if price is None or row.price_id is None:
                self._found_of(usage, "unpriced", f"'{usage.model}' had no price when it was billed")
                return ()
            if price.id != row.price_id:
                what = f"billed by price {row.price_id}; price {price.id} was in force"
                self._found_of(usage, "wrong_price", what)
            return cost.lines(usage, price)
        except cost.Unpriced as missing:
            self._found_of(usage, "unpriced", f"price {price.id if price else 0} has no rate for {missing}")
            return ()

    def _compare(self, usage: Usage, expected: Sequence[Booked], booked: Sequence[Booked]) -> None:
        wanted = {posting.line: posting for posting in expected}
        seen: set[str] = set()
        for posting in booked:
            self.billed_nanodollars += posting.net
            if posting.line in seen:
                self._found_of(usage, "duplicate", f"{posting.line}: {posting.amount} is billed again")
            elif posting.line not in wanted:
                what = f"{posting.line}: {posting.amount} is billed; it should not be billed at all"
                self._found_of(usage, "unexpected_posting", what)
            else:
                for kind, what in _differences(wanted[posting.line], posting):
                    self._found_of(usage, kind, f"{posting.line}: {what}")
            seen.add(posting.line)
        for line in wanted.keys() - seen:
            self._found_of(usage, "missing_posting", f"{line}: {wanted[line].amount} is not billed")

    def _found_of(self, usage: Usage, kind: str, detail: str) -> None:
        self._found(kind, usage.attribution.organization_id, usage.request_id, detail)

    def _found(self, kind: str, organization_id: str, subject: str, detail: str) -> None:
        self.total += 1
        self._kept[kind] += 1
        if self._kept[kind] <= MOST_FINDINGS:
            self._findings.append(Finding(kind=kind, organization_id=organization_id, subject=subject, detail=detail))


def _expected(usage: Usage, lines: Sequence[cost.Line]) -> str:
    """The postings that there should be, as the store would show them."""
    if not lines:
        return ""
    who = usage.attribution
    rest = (
        f"{UNIT}{who.organization_id}{UNIT}{who.project_id}{UNIT}{who.key_id}{UNIT}{usage.model}"
        f"{UNIT}{usage.finished_at_ms}"
    )
    entries = []
    for name, quantity, amount in lines:
        accounts = f"receivable{UNIT}revenue:{name}" if amount > 0 else f"discounts{UNIT}receivable"
        entries.append(f"{name}{UNIT}{accounts}{UNIT}{abs(amount)}{UNIT}{quantity}{rest}")
    entries.sort()
    return RECORD.join(entries)


def _booked(postings: str) -> list[Booked]:
    return [Booked(*entry.split(UNIT)) for entry in postings.split(RECORD)] if postings else []


def _differences(wanted: Booked, posting: Booked) -> Iterator[tuple[str, str]]:
    """Kinds of findings and what they say, of a posting that is not as it should be."""
    if posting.amount != wanted.amount:
        yield "wrong_amount", f"{posting.amount} is billed instead of {wanted.amount}"
    if posting.accounts != wanted.accounts or posting.model != wanted.model:
        yield "wrong_account", f"{posting.accounts}, {posting.model}, instead of {wanted.accounts}, {wanted.model}"
    if posting.occurred_at_ms != wanted.occurred_at_ms:
        yield "wrong_time", f"billed at {posting.occurred_at_ms} instead of {wanted.occurred_at_ms}"
