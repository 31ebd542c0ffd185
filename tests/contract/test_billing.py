"""BillingService, over both wirings."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modelplane.billing.v1.billing_api import BillingService
from modelplane.billing.v1.billing_pb2 import CheckpointRequest, ExtendRequest, HoldRequest, ReleaseRequest
from modelplane.usage.v1 import usage_pb2
from services.billing.service import serving
from services.billing.settings import BillingSettings
from services.faults import InvalidRequest, NotFound, RateLimited, Unavailable
from services.storage import Database
from tests.contract.conftest import Wire
from tests.services.billing.money import CENT, OUTPUT, furnish, used
from tests.services.billing.money import asking as asking_money
from tests.services.billing.usages import asking, recording, usage


@pytest.fixture
async def billing(database: Database, wire: Wire, tmp_path: Path) -> AsyncIterator[BillingService]:
    settings = BillingSettings(spool_bytes=10_000, drain_interval_ms=3_600_000)
    async with serving(tmp_path, database, settings) as service:
        yield await wire(BillingService, service)


async def test_what_is_recorded_is_found(billing: BillingService) -> None:
    made = [usage(), usage()]
    await billing.record(recording(*made))
    for one in made:
        assert (await billing.get_usage(asking(one.request_id))).usage == one


async def test_a_request_id_counts_once(billing: BillingService) -> None:
    for tokens in (5, 6):
        await billing.record(recording(usage("req_1", tokens)))
    assert (await billing.get_usage(asking("req_1"))).usage.output_tokens == 5


async def test_usage_of_others_is_not_found(billing: BillingService) -> None:
    await billing.record(recording(usage("req_1")))
    for request in (asking("req_1", "org-2"), asking("req_2"), asking("")):
        with pytest.raises(NotFound) as caught:
            await billing.get_usage(request)
        assert caught.value.reason == "usage_not_found"


async def test_a_record_without_an_id_is_refused(billing: BillingService) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await billing.record(recording(usage_pb2.Usage(model="x")))
    assert caught.value.reason == "invalid_value"


async def test_a_full_spool_refuses(billing: BillingService) -> None:
    with pytest.raises(Unavailable) as caught:
        await billing.record(recording(*(usage() for _ in range(100))))
    assert caught.value.reason == "spool_full"
    assert caught.value.retry_after_ms > 0


async def test_money_is_held_extended_and_given_back(billing: BillingService, database_url: str) -> None:
    furnish(database_url, limit_cents=1)
    await known_prices(billing)
    tokens = CENT // OUTPUT
    first = asking_money(tokens // 2, 10 * tokens)
    assert (await billing.hold(first)).output_tokens == tokens // 2
    assert (await billing.hold(first)).output_tokens == tokens // 2
    more = ExtendRequest(request_id=first.request_id, output_tokens=tokens // 2)
    assert (await billing.extend(more)).output_tokens == tokens
    with pytest.raises(RateLimited) as caught:
        await billing.hold(asking_money())
    assert caught.value.reason == "insufficient_quota"
    with pytest.raises(RateLimited):
        await billing.extend(more)
    await billing.release(ReleaseRequest(request_id=first.request_id))
    assert (await billing.hold(asking_money())).output_tokens == 100


async def test_a_record_ends_what_was_held_and_tells_its_cost(billing: BillingService, database_url: str) -> None:
    furnish(database_url, limit_cents=1)
    await known_prices(billing)
    request = asking_money(CENT // OUTPUT, CENT // OUTPUT)
    await billing.hold(request)
    await billing.checkpoint(CheckpointRequest(usages=[used(request, 3)]))
    await billing.record(recording(used(request, 5)))
    await billing.hold(asking_money())
    found = await billing.get_usage(asking(request.request_id))
    assert found.nanodollars == 5 * OUTPUT


async def test_what_has_no_price_is_not_held(billing: BillingService) -> None:
    with pytest.raises(Unavailable) as caught:
        await billing.hold(asking_money(model="unknown"))
    assert caught.value.reason == "model_not_priced"
    with pytest.raises(InvalidRequest):
        await billing.hold(HoldRequest(model="unknown"))


async def test_unknown_requests_are_covered(billing: BillingService) -> None:
    assert (await billing.extend(ExtendRequest(request_id="req_x", output_tokens=10))).output_tokens > 10**9
    await billing.release(ReleaseRequest(request_id="req_x"))


async def known_prices(billing: BillingService) -> None:
    """Waits until the service has heard of the prices that were added beside it."""
    deadline = time.monotonic() + 30
    while True:
        request = asking_money(0, 0)
        try:
            await billing.hold(request)
        except Unavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        else:
            await billing.release(ReleaseRequest(request_id=request.request_id))
            return
