"""Buckets and pages of any period: each second once, in order, aligned; and the hours that are whole in them."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.reports import periods
from services.reports.periods import DAY_S, HOUR_S, MINUTE_S, Page, Period, Span

WIDTHS = st.sampled_from((MINUTE_S, HOUR_S, DAY_S))


@st.composite
def asked(draw: st.DrawFn) -> tuple[Period, int]:
    """A period of up to a few hundred buckets, and how many a page has."""
    bucket_s = draw(WIDTHS)
    since_s = draw(st.integers(0, 2**33))
    until_s = since_s + draw(st.integers(1, 300 * bucket_s))
    return Period(since_s, until_s, bucket_s), draw(st.integers(1, 200))


def pages(of: Period, limit: int) -> list[Page]:
    found = [periods.page(of, limit, "")]
    while found[-1].has_more:
        found.append(periods.page(of, limit, periods.cursor(found[-1].span.until_s)))
    return found


@given(asked())
def test_pages_have_each_second_once(given_: tuple[Period, int]) -> None:
    of, limit = given_
    found = pages(of, limit)
    buckets = [bucket for page in found for bucket in page.buckets]
    assert all(1 <= len(page.buckets) <= limit for page in found)
    assert (buckets[0].since_s, buckets[-1].until_s) == (of.since_s, of.until_s)
    for before, after in pairwise(buckets):
        assert before.until_s == after.since_s and after.since_s % of.bucket_s == 0
    assert all(0 < bucket.until_s - bucket.since_s <= of.bucket_s for bucket in buckets)


@given(asked())
def test_hours_and_edges_are_the_whole(given_: tuple[Period, int]) -> None:
    of, limit = given_
    for page in pages(of, limit):
        hours, edges = periods.split(page)
        spans = sorted((*edges, *([hours] if hours else ())))
        assert (spans[0].since_s, spans[-1].until_s) == page.span
        assert all(before.until_s == after.since_s for before, after in pairwise(spans))
        assert all(span.since_s < span.until_s for span in spans)
        if hours:
            assert hours.since_s % HOUR_S == hours.until_s % HOUR_S == 0 and of.bucket_s >= HOUR_S
        # What the roll-ups do not have is less than two hours, but for buckets of minutes.
        assert of.bucket_s == MINUTE_S or sum(end - start for start, end in edges) < 2 * HOUR_S


@given(st.integers(0, 2**33), WIDTHS, st.integers(0, 2**33))
def test_without_an_end_it_lasts_until_the_bucket_is_over(since_s: int, bucket_s: int, now_s: int) -> None:
    of = periods.period(since_s, 0, bucket_s, now_s)
    assert of.until_s % bucket_s == 0 and 0 < of.until_s - now_s <= bucket_s
    assert periods.page(of, 10, "").buckets or since_s >= of.until_s


def test_a_span_within_an_hour_has_no_whole_one() -> None:
    page = periods.page(periods.period(7200 + 1, 7200 + 3599, DAY_S, 0), 1, "")
    assert periods.split(page) == (None, (Span(7201, 10_799),))
