"""The time that a report is about: its buckets, its pages, and the hours that are whole in it. Pure.

Keeps true: buckets begin at multiples of their width, UTC, but for the first, which begins with the period; none
overlaps another, and the pages of a period have each of its seconds once.
"""

import base64
import binascii
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from services.faults import InvalidRequest

MINUTE_S: Final = 60
HOUR_S: Final = 3600
DAY_S: Final = 86_400
# The end of the year 9999.
LAST_S: Final = 253_402_300_800
_PREFIX: Final = "page_"
_PLACE: Final = struct.Struct(">q")


class Span(NamedTuple):
    """From the first second to the first one after it."""

    since_s: int
    until_s: int


class Period(NamedTuple):
    """What is asked about."""

    since_s: int
    until_s: int
    bucket_s: int


class Page(NamedTuple):
    """Buckets without a gap between them, and whether the period goes on after the last."""

    buckets: Sequence[Span]
    has_more: bool
    bucket_s: int

    @property
    def span(self) -> Span:
        """From the first to the last. Of a page that has any."""
        return Span(self.buckets[0].since_s, self.buckets[-1].until_s)


def period(start_time: int, end_time: int, bucket_s: int, now_s: int) -> Period:
    """Without an end it lasts until the current bucket is over. Raises InvalidRequest."""
    for param, value in (("start_time", start_time), ("end_time", end_time)):
        if not 0 <= value <= LAST_S:
            raise InvalidRequest("invalid_value", f"Invalid '{param}': {value} is no time.", param=param)
    if end_time and end_time <= start_time:
        raise InvalidRequest("invalid_value", "Invalid 'end_time': it must be after 'start_time'.", param="end_time")
    return Period(start_time, end_time or (now_s // bucket_s + 1) * bucket_s, bucket_s)


def page(of: Period, limit: int, cursor: str) -> Page:
    """The next buckets, from the one that the cursor names. Raises InvalidRequest for a cursor of another report."""
    since_s = _place(of, cursor) if cursor else of.since_s
    buckets: list[Span] = []
    while since_s < of.until_s and len(buckets) < limit:
        until_s = min((since_s // of.bucket_s + 1) * of.bucket_s, of.until_s)
        buckets.append(Span(since_s, until_s))
        since_s = until_s
    return Page(buckets, since_s < of.until_s, of.bucket_s)


def cursor(since_s: int) -> str:
    """Names the bucket that begins there."""
    return _PREFIX + base64.urlsafe_b64encode(_PLACE.pack(since_s)).decode()


def split(page: Page) -> tuple[Span | None, Sequence[Span]]:
    """The whole hours of a page that has buckets, and what is left of it at its ends. Buckets of less than an hour have
    no whole hours."""
    span = page.span
    first, last = -(-span.since_s // HOUR_S) * HOUR_S, span.until_s // HOUR_S * HOUR_S
    if page.bucket_s < HOUR_S or first >= last:
        return None, (span,)
    edges = (Span(span.since_s, first), Span(last, span.until_s))
    return Span(first, last), tuple(edge for edge in edges if edge.since_s < edge.until_s)


def _place(of: Period, cursor: str) -> int:
    try:
        place: int = _PLACE.unpack(base64.urlsafe_b64decode(cursor.removeprefix(_PREFIX)))[0]
    except (binascii.Error, struct.error, ValueError):
        place = -1
    if place % of.bucket_s or not of.since_s < place < of.until_s:
        raise InvalidRequest("invalid_value", "Invalid 'page': it is not one of this report.", param="page")
    return place
