"""BillingService, over both wirings."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modelplane.billing.v1.billing_api import BillingService
from modelplane.usage.v1 import usage_pb2
from services.billing.service import serving
from services.billing.settings import BillingSettings
from services.faults import InvalidRequest, NotFound, Unavailable
from services.storage import Database
from tests.contract.conftest import Wire
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
