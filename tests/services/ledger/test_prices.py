"""The price book: what is set holds from its date on and never before; starts add what is new, once."""

import asyncio
import json

import pytest

from modelplane.ledger.v1 import ledger_pb2 as pb
from services.catalog import DEFAULT_MODEL, Catalog, ModelSpec
from services.faults import InvalidRequest
from services.ledger.prices import configured
from services.ledger.service import Ledger
from services.pricing import defaults
from services.pricing.rates import Rates, parse
from services.settings import SettingsError
from tests.services.ledger.conftest import ACTOR, Clock

CHEAP, DEAR = parse({"input": "1", "output": "2"}), parse({"input": "3", "output": "4"})


async def listed(service: Ledger, model: str = "", at: int = 0, history: bool = False) -> list[tuple[str, str, str]]:
    """Model, source and what the input costs."""
    answer = await service.list_prices(pb.ListPricesRequest(model=model, at=at, history=history))
    return [(price.model, price.source, json.loads(price.rates_json).get("input", "free")) for price in answer.prices]


async def set_price(service: Ledger, model: str, rates: dict[str, object], effective_at: int = 0) -> pb.Price:
    request = pb.SetPriceRequest(
        model=model, rates_json=json.dumps(rates).encode(), effective_at=effective_at, actor=ACTOR
    )
    return (await service.set_price(request)).price


async def test_a_price_holds_from_its_date_on(service: Ledger, clock: Clock) -> None:
    now = int(clock.now_s)
    first = await set_price(service, "m", {"input": "1"})
    assert clock.now_s + 1 <= first.effective_at <= clock.now_s + 2.001
    await set_price(service, "m", {"input": "2"}, now + 1000)
    await set_price(service, "m", {"input": "3"}, now + 500)
    seen = [await listed(service, "m", at) for at in (now, first.effective_at, now + 500, now + 999, now + 1000)]
    assert [[row[2] for row in rows] for rows in seen] == [[], ["1"], ["3"], ["3"], ["2"]]
    assert [row[2] for row in await listed(service, "m", history=True)] == ["2", "3", "1"]


@pytest.mark.parametrize("early_s", [0, 1, 10**6])
async def test_a_price_never_begins_in_the_past(service: Ledger, clock: Clock, early_s: int) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await set_price(service, "m", {"input": "1"}, int(clock.now_s) - early_s)
    assert refused.value.param == "effective_at"


@pytest.mark.parametrize(
    ("model", "rates"), [("", {"input": "1"}), ("m\0", {"input": "1"}), ("m", {}), ("m", {"inptu": 1})]
)
async def test_what_is_no_price_is_refused(service: Ledger, model: str, rates: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        await set_price(service, model, rates)
    assert await listed(service, history=True) == []


async def test_a_first_start_prices_what_is_shipped_at_once(service: Ledger, clock: Clock) -> None:
    await service.sync_prices(defaults.load(), configured(Catalog((DEFAULT_MODEL,))))
    found = await listed(service)
    assert {model for model, _, _ in found} == set(defaults.load())
    assert {source for _, source, _ in found} == {"default"}


async def test_starts_add_what_has_changed_and_nothing_else(service: Ledger, clock: Clock) -> None:
    steps = [
        ({"m": CHEAP}, {}, [("default", "1")]),
        ({"m": CHEAP}, {}, [("default", "1")]),
        ({"m": DEAR}, {}, [("default", "3")]),
        ({"m": DEAR}, {"m": CHEAP}, [("file", "1")]),
        ({"m": DEAR}, {"m": CHEAP}, [("file", "1")]),
        # A new list price does not undo one's own.
        ({"m": CHEAP}, {"m": DEAR}, [("file", "3")]),
        ({"m": DEAR}, {"m": Rates(free=True)}, [("file", "free")]),
    ]
    for shipped, own, expected in steps:
        clock.now_s += 10
        await service.sync_prices(shipped, own)
        clock.now_s += 10
        assert [row[1:] for row in await listed(service, "m")] == expected
    assert len(await listed(service, "m", history=True)) == 5


async def test_what_an_operator_has_set_outlives_starts(service: Ledger, clock: Clock) -> None:
    await service.sync_prices({"m": CHEAP}, {"m": CHEAP})
    await set_price(service, "m", {"input": "7"})
    clock.now_s += 10
    await service.sync_prices({"m": DEAR}, {"m": CHEAP})
    clock.now_s += 10
    assert await listed(service, "m") == [("m", "operator", "7")]
    await service.sync_prices({"m": DEAR}, {"m": DEAR})
    clock.now_s += 10
    assert await listed(service, "m") == [("m", "file", "3")]


async def test_a_file_price_counts_from_the_first_start_on(service: Ledger) -> None:
    await service.sync_prices({"m": CHEAP}, {"m": DEAR, "n": Rates(free=True)})
    assert await listed(service, at=1) == [("m", "file", "3"), ("n", "file", "free")]


async def test_ledgers_that_start_at_once_add_each_price_once(service: Ledger) -> None:
    await asyncio.gather(*(service.sync_prices(defaults.load(), {"m": DEAR}) for _ in range(5)))
    assert len(await listed(service, history=True)) == len(defaults.load()) + 1


def test_prices_of_a_file() -> None:
    models = (
        ModelSpec(name="free", free=True),
        ModelSpec(name="dear", price={"input": 0.15, "output": 0.6}),
        ModelSpec(name="unpriced"),
    )
    assert configured(Catalog(models)) == {"free": Rates(free=True), "dear": parse({"input": "0.15", "output": "0.6"})}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (ModelSpec(name="broken", price={"input": "much"}), "'broken'.*input"),
        (ModelSpec(name="broken", price={"inptu": 1}), "'broken'.*inptu"),
        (ModelSpec(name="both", price={"input": 1}, free=True), "'both' is free and has a price"),
    ],
)
def test_a_broken_price_of_a_file_is_named(spec: ModelSpec, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        configured(Catalog((spec,)))


def test_one_price_that_cannot_be_used_does_not_hide_the_others() -> None:
    models = (ModelSpec(name="good", free=True), ModelSpec(name="bad", price={"input": "much"}))
    assert configured(Catalog(models), strict=False) == {"good": Rates(free=True)}


async def test_prices_of_models_that_come_are_added(service: Ledger) -> None:
    catalog, changed = Catalog((ModelSpec(name="first", free=True),)), asyncio.Event()
    catalog.subscribe(changed.set)
    keeping = asyncio.create_task(service.keep_prices(catalog, changed))
    try:
        catalog.replace(Catalog((ModelSpec(name="bad", price={"x": 1}), ModelSpec(name="new", price={"input": "5"}))))
        async with asyncio.timeout(30):
            while await listed(service, "new") != [("new", "file", "5")]:
                await asyncio.sleep(0.01)
        assert not await listed(service, "bad")
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
