"""Holds on a real PostgreSQL: what is admitted never exceeds a bound, and what fits is admitted."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import psycopg
import pytest

from modelplane.billing.v1.billing_pb2 import ExtendRequest, HoldRequest
from services.billing.accounts import LEAST_TOKENS
from services.billing.funds import Funds, month_of
from services.faults import RateLimited, Unavailable
from services.storage import Database
from tests.services.billing.money import (
    CENT,
    DOLLAR,
    FREE_MODEL,
    INPUT,
    NOW_MS,
    ORGANIZATION,
    OUTPUT,
    PROJECT,
    Clock,
    asking,
    drain,
    funds_of,
    furnish,
    leased,
    limit,
    price,
    spent,
    used,
)

Shared = list[Funds]
# A hold of 100 output tokens.
HOLD = 100 * OUTPUT


@pytest.fixture
async def four(database: Database) -> AsyncIterator[Callable[[], Awaitable[Shared]]]:
    """Four processes' funds, which hear of each other; called when the database is furnished."""
    async with AsyncExitStack() as stack:

        async def start() -> Shared:
            funds = [await stack.enter_async_context(funds_of(database)) for _ in range(4)]
            for one in funds:
                task = asyncio.create_task(one.keep_informed())
                stack.callback(task.cancel)
            await asyncio.sleep(0.2)
            return funds

        yield start


async def admitted(funds: Funds, request: HoldRequest) -> bool:
    try:
        await funds.hold(request)
    except RateLimited as fault:
        assert fault.reason == "insufficient_quota"
        assert fault.retry_after_ms == 0
        assert fault.message.startswith("You exceeded your current quota, please check your plan and billing details.")
        return False
    return True


async def until(done: Callable[[], Awaitable[bool]], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not await done():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_holds_of_four_processes_never_exceed_a_limit_and_use_all_of_it(
    four: Callable[[], Awaitable[Shared]], database_url: str
) -> None:
    furnish(database_url, limit_cents=1)
    funds = await four()
    fits = CENT // HOLD
    # Three times as many as fit, from all four at once.
    results = await asyncio.gather(*(admitted(funds[n % 4], asking()) for n in range(3 * fits)))
    assert sum(results) == fits
    assert leased(database_url) <= CENT


async def test_unused_worst_cases_refuse_nobody(
    four: Callable[[], Awaitable[Shared]], database: Database, database_url: str
) -> None:
    """Each expects a tenth and might take all of the limit; together they take nine tenths of it, a little each."""
    furnish(database_url, limit_cents=100)
    funds = await four()
    expected, actual, most = 1000, 100, 100_000
    number = 9 * 100 * CENT // 10 // (actual * OUTPUT)
    busy = asyncio.Semaphore(16)

    async def one(index: int) -> bool:
        async with busy:
            request = asking(expected, most)
            mine = funds[index % 4]
            if not await admitted(mine, request):
                return False
            await asyncio.sleep(0)
            mine.settle(used(request, actual))
            if index % 8 < 4:
                await drain(database, mine, actual * OUTPUT)
            return True

    results = await asyncio.gather(*(one(index) for index in range(number)))
    assert all(results)


async def test_a_limit_of_a_project_and_of_its_organization_count_together(
    database: Database, database_url: str
) -> None:
    furnish(database_url, limit_cents=3, project_cents=2)
    async with funds_of(database) as funds:
        fits = CENT // HOLD
        mine = [await admitted(funds, asking()) for _ in range(3 * fits)]
        assert sum(mine) == 2 * fits
        with pytest.raises(RateLimited, match="the project's monthly spend limit"):
            await funds.hold(asking())
        others = [await admitted(funds, asking(project_id="proj_2")) for _ in range(3 * fits)]
        assert sum(others) == fits
        with pytest.raises(RateLimited, match="the organization's monthly spend limit"):
            await funds.hold(asking(project_id="proj_3"))
    assert leased(database_url) == 0


async def test_prepaid_credits_bound_what_is_used(database: Database, database_url: str) -> None:
    furnish(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE organizations SET prepaid = true")
        connection.execute(
            "INSERT INTO credits (organization_id, id, kind, nanodollars, remaining, expires_at) VALUES "
            "(%(org)s, 'a', 'grant', %(all)s, %(left)s, NULL), (%(org)s, 'old', 'grant', %(all)s, %(all)s, now()), "
            "(%(org)s, 'b', 'grant', %(left)s, %(left)s, now() + interval '1 day')",
            {"org": ORGANIZATION, "all": 1000 * HOLD, "left": 5 * HOLD},
        )
        connection.execute("INSERT INTO balances VALUES (%s, 'receivable', %s)", (ORGANIZATION, 3 * HOLD))
    async with funds_of(database) as funds:
        assert sum([await admitted(funds, asking()) for _ in range(10)]) == 7
        with pytest.raises(RateLimited, match="prepaid credits"):
            await funds.hold(asking())


async def test_the_cap_of_the_usage_tier_bounds_a_month(database: Database, database_url: str) -> None:
    furnish(database_url, usage_tier=2)
    spent(database_url, 500 * DOLLAR - 5 * HOLD)
    async with funds_of(database, Clock()) as funds:
        assert sum([await admitted(funds, asking()) for _ in range(10)]) == 5
        with pytest.raises(RateLimited, match="usage tier"):
            await funds.hold(asking())


async def test_a_new_month_has_its_own_money(database: Database, database_url: str) -> None:
    furnish(database_url, limit_cents=1)
    spent(database_url, CENT)
    clock = Clock()
    clock.ms = month_of(NOW_MS)[1] - 1
    async with funds_of(database, clock) as funds:
        assert not await admitted(funds, asking())
        clock.ms += 1
        # Though time has not passed: the refusal was of last month.
        fits = CENT // HOLD
        assert sum([await admitted(funds, asking()) for _ in range(2 * fits)]) == fits


async def test_a_purse_of_last_month_counts_against_this_months_limit(database: Database, database_url: str) -> None:
    furnish(database_url, limit_cents=1)
    clock = Clock()
    clock.ms = month_of(NOW_MS)[1] - 1
    async with funds_of(database, clock) as one, funds_of(database, clock) as other:
        assert await admitted(one, asking())
        clock.ms += 1
        fits = CENT // HOLD
        results = [await admitted((one, other)[n % 2], asking()) for n in range(2 * fits)]
        assert sum(results) <= fits - 1
        assert leased(database_url) <= CENT


async def test_a_raised_limit_counts_at_once(database: Database, database_url: str) -> None:
    furnish(database_url, limit_cents=1)
    spent(database_url, CENT)
    # A clock that stands still: nothing is tried again because time has passed.
    async with funds_of(database, Clock()) as funds:
        listening = asyncio.create_task(funds.keep_informed())
        assert not await admitted(funds, asking())
        await asyncio.sleep(0.2)
        assert not await admitted(funds, asking())
        limit(database_url, 2)
        await until(lambda: admitted(funds, asking()))
        listening.cancel()


async def test_a_lowered_limit_counts_at_once(database: Database, database_url: str) -> None:
    furnish(database_url, limit_cents=100)
    async with funds_of(database, Clock()) as funds:
        listening = asyncio.create_task(funds.keep_informed())
        assert await admitted(funds, asking())
        await asyncio.sleep(0.2)
        limit(database_url, 0, PROJECT)

        async def refused() -> bool:
            request = asking(1)
            taken = await admitted(funds, request)
            funds.release(request.request_id)
            return not taken

        await until(refused)
        listening.cancel()


async def test_a_refused_crowd_does_not_ask_the_database_again(database: Database, database_url: str) -> None:
    furnish(database_url, limit_cents=0)
    clock = Clock()
    async with funds_of(database, clock) as funds:
        assert not await admitted(funds, asking())
        limit(database_url, 1)
        assert not any([await admitted(funds, asking()) for _ in range(20)])
        clock.s += 1.0
        assert await admitted(funds, asking())


async def test_the_worst_case_is_held_where_there_is_plenty(database: Database, database_url: str) -> None:
    furnish(database_url)
    async with funds_of(database) as funds:
        request = asking(10, 1000, input_tokens=50)
        assert await funds.hold(request) == 1000
        assert await funds.hold(request) == 1000
        assert funds.held_nanodollars == 1000 * OUTPUT + 50 * INPUT
        funds.release(request.request_id)
        assert funds.held_nanodollars == 0


async def test_a_request_is_extended_until_nothing_is_left(database: Database, database_url: str) -> None:
    furnish(database_url, limit_cents=1)
    tokens = CENT // OUTPUT
    async with funds_of(database, Clock()) as funds:
        request = asking(tokens // 2, 10 * tokens)
        held = await funds.hold(request)
        assert held == tokens // 2
        held = await funds.extend(ExtendRequest(request_id=request.request_id, output_tokens=held))
        assert held == 2 * (tokens // 2)
        with pytest.raises(RateLimited, match="insufficient_quota"):
            await funds.extend(ExtendRequest(request_id=request.request_id, output_tokens=held))
        # What it was, it is still.
        assert funds.held_nanodollars == held * OUTPUT
        assert await funds.extend(ExtendRequest(request_id="req_unknown", output_tokens=5)) > 10**15


async def test_what_costs_more_than_was_held_is_taken_from_the_rest(database: Database, database_url: str) -> None:
    furnish(database_url, limit_cents=1)
    fits = CENT // HOLD
    async with funds_of(database, Clock()) as funds:
        request = asking()
        assert await admitted(funds, request)
        funds.settle(used(request, 501))
        # The last one gets what there is, which is less than was expected.
        assert sum([await admitted(funds, asking()) for _ in range(fits)]) == fits - 5
        await drain(database, funds, 501 * OUTPUT)
        assert not await admitted(funds, asking())
        assert leased(database_url) <= CENT - 501 * OUTPUT


async def test_what_is_drained_is_leased_no_more(database: Database, database_url: str) -> None:
    furnish(database_url, limit_cents=1, project_cents=1)
    async with funds_of(database) as funds:
        for _ in range(CENT // HOLD):
            request = asking()
            assert await admitted(funds, request)
            funds.settle(used(request, 100))
            before = leased(database_url), leased(database_url, PROJECT)
            await drain(database, funds, HOLD)
            assert (leased(database_url), leased(database_url, PROJECT)) == (before[0] - HOLD, before[1] - HOLD)
        assert not await admitted(funds, asking())


async def test_a_lost_lease_is_written_again_by_the_drain(database: Database, database_url: str) -> None:
    furnish(database_url, limit_cents=1)
    async with funds_of(database) as funds:
        request = asking()
        assert await admitted(funds, request)
        funds.settle(used(request, 100))
        before = leased(database_url)
        with psycopg.connect(database_url) as connection:
            connection.execute("DELETE FROM spend_leases")
        await drain(database, funds, HOLD)
        assert leased(database_url) == before - HOLD > 0


async def test_a_dead_processs_lease_ends_by_itself(database: Database, database_url: str) -> None:
    furnish(database_url, limit_cents=1)
    async with funds_of(database, lease_s=1.0) as dead, funds_of(database) as other:
        fits = CENT // HOLD
        assert sum([await admitted(dead, asking()) for _ in range(2 * fits)]) == fits
        assert not await admitted(other, asking())
        await until(lambda: admitted(other, asking()))


async def test_a_renewed_lease_lasts(database: Database, database_url: str) -> None:
    furnish(database_url, limit_cents=1)
    async with funds_of(database, lease_s=1.0) as one, funds_of(database) as other:
        fits = CENT // HOLD
        assert sum([await admitted(one, asking()) for _ in range(2 * fits)]) == fits
        for _ in range(4):
            await asyncio.sleep(0.4)
            await one.renew()
        assert not await admitted(other, asking())


async def test_idle_money_goes_to_who_needs_it(four: Callable[[], Awaitable[Shared]], database_url: str) -> None:
    furnish(database_url, limit_cents=1)
    funds = await four()
    fits = CENT // HOLD
    for one in funds[1:]:
        request = asking()
        assert await admitted(one, request)
        one.release(request.request_id)
    assert await admitted(funds[0], asking(100 * fits, 100 * fits))


async def test_what_lies_idle_is_returned_and_forgotten(database: Database, database_url: str) -> None:
    furnish(database_url)
    async with funds_of(database) as funds:
        request = asking()
        await funds.hold(request)
        funds.release(request.request_id)
        assert leased(database_url) > 0
        await funds.renew()

        async def returned() -> bool:
            await funds.renew()
            return leased(database_url) == 0

        await until(returned)


async def test_a_hold_that_nobody_ends_comes_back(database: Database, database_url: str) -> None:
    furnish(database_url)
    clock = Clock()
    async with funds_of(database, clock) as funds:
        await funds.hold(asking())
        clock.s += 899
        await funds.hold(asking())
        await funds.renew()
        assert funds.held_nanodollars == 2 * HOLD
        clock.s += 2
        await funds.renew()
        assert funds.held_nanodollars == HOLD


async def test_without_a_database_a_purse_lasts_and_then_nothing_is_served(
    database: Database, database_url: str
) -> None:
    furnish(database_url, limit_cents=100)
    clock = Clock()
    async with funds_of(database, clock) as funds:
        assert await admitted(funds, asking())
        await database.close()
        assert await admitted(funds, asking())
        assert await admitted(funds, asking(model=FREE_MODEL))
        with pytest.raises(Unavailable, match="database_unavailable"):
            for _ in range(1000):
                await funds.hold(asking())
        clock.s += 61
        # Others may have what was leased.
        with pytest.raises(Unavailable, match="database_unavailable"):
            await funds.hold(asking(1, 1))
        assert await admitted(funds, asking(model=FREE_MODEL))


async def test_a_model_without_a_price_is_not_served(database: Database, database_url: str) -> None:
    furnish(database_url)
    with psycopg.connect(database_url) as connection:
        price(connection, "input-only", '{"input": "1"}')
        price(connection, "pictures", '{"images": [{"price": "0.04"}]}')
    async with funds_of(database) as funds:
        for request in (asking(model="unknown"), asking(model="input-only"), asking(1, 1, model="pictures")):
            with pytest.raises(Unavailable, match="modelplane prices set") as caught:
                await funds.hold(request)
            assert (caught.value.reason, caught.value.rule.status) == ("model_not_priced", 503)
            assert not caught.value.rule.retryable
        assert await funds.hold(asking(0, 0, input_tokens=100, model="input-only")) == 0
        picture = asking(0, 0, model="pictures")
        picture.also.images = 2
        assert await funds.hold(picture) == 0
        assert funds.held_nanodollars == 100 * INPUT + 80_000_000


async def test_free_models_need_no_purse(database: Database, database_url: str) -> None:
    furnish(database_url, limit_cents=0)
    async with funds_of(database) as funds:
        assert await funds.hold(asking(5, 50, model=FREE_MODEL)) == 50
        assert leased(database_url) == 0


async def test_what_was_given_up_while_it_waited_holds_nothing(database: Database, database_url: str) -> None:
    furnish(database_url)
    async with funds_of(database) as funds:
        waiting = [asyncio.create_task(funds.hold(asking())) for _ in range(10)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await funds.hold(asking())
        assert funds.held_nanodollars == HOLD


async def test_nobody_is_refused_for_what_those_who_run_do_not_use(database: Database, database_url: str) -> None:
    """Twenty requests expect a tenth of the limit each, and use a hundredth."""
    furnish(database_url, limit_cents=1)
    async with funds_of(database, patience_s=5) as funds:

        async def served() -> None:
            request = asking()
            await funds.hold(request)
            await asyncio.sleep(0.05)
            funds.settle(used(request, 10))

        await asyncio.gather(*(served() for _ in range(20)))


async def test_who_waits_in_vain_is_refused(database: Database, database_url: str) -> None:
    furnish(database_url, limit_cents=1)
    async with funds_of(database, patience_s=0.3) as funds:
        first = asking(1000, 1000)
        await funds.hold(first)
        waiting = asyncio.create_task(funds.hold(asking()))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        funds.settle(used(first, 1000))
        with pytest.raises(RateLimited):
            await waiting


async def test_the_last_request_gets_what_there_is(database: Database, database_url: str) -> None:
    """Money is refused when it is used up, and not when it is less than was guessed."""
    furnish(database_url, limit_cents=1)
    async with funds_of(database) as funds:
        first = asking(940, 940)
        await funds.hold(first)
        funds.settle(used(first, 940))
        last = asking(256, 4000)
        assert LEAST_TOKENS <= await funds.hold(last) < 60
        with pytest.raises(RateLimited):
            await funds.extend(ExtendRequest(request_id=last.request_id, output_tokens=50))
        with pytest.raises(RateLimited):
            await funds.hold(asking(256, 4000))
