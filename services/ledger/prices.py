"""Keeps the price book: adds what operators, the shipped defaults and the file of models say, and never changes it.

Kept true: no version begins in the past, but for the first of a model, which nothing was served by yet; what an
operator has set is not undone by a start with the same file and the same defaults, nor ever by new defaults.
"""

from collections.abc import Callable, Mapping
from typing import Final

from modelplane.ledger.v1 import ledger_pb2 as pb
from services import asked, telemetry
from services.catalog import Catalog, ModelSpec
from services.faults import InvalidRequest
from services.ledger import lookups
from services.ledger.store import LedgerStore
from services.pricing.book import Book, Version
from services.pricing.rates import Rates, RatesError, decode, encode, parse
from services.settings import SettingsError

# So long that no record whose price it is can be in the ledger before it is.
LEAD_MS: Final = 1000
DEFAULT: Final = "default"
FILE: Final = "file"
OPERATOR: Final = "operator"

log = telemetry.logger(__name__)


class Prices:
    """The contract's part about prices. `clock` gives seconds of the epoch."""

    def __init__(self, store: LedgerStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    async def list_prices(self, request: pb.ListPricesRequest, /) -> pb.ListPricesResponse:
        if asked.has_nul(request.model):
            return pb.ListPricesResponse()
        async with self._store.transaction() as records:
            versions = await records.prices.versions(request.model)
        if not request.history:
            at_ms = (request.at or int(self._clock())) * 1000
            book = Book(versions)
            in_force = {price.id for model in book.models() if (price := book.price(model, at_ms))}
            versions = [version for version in versions if version.id in in_force]
        versions = sorted(versions, key=lambda version: (version.model, -version.effective_at_ms, -version.id))
        return pb.ListPricesResponse(prices=[_shown(version) for version in versions])

    async def set_price(self, request: pb.SetPriceRequest, /) -> pb.SetPriceResponse:
        model = lookups.name(request.model, "model")
        try:
            rates = decode(request.rates_json)
        except RatesError as error:
            raise InvalidRequest("invalid_value", f"Invalid price of '{model}': {error}", param="rates") from error
        async with self._store.transaction() as records:
            await records.prices.lock()
            effective_at_ms = self._soon_ms()
            if request.effective_at:
                asked.number(request.effective_at, effective_at_ms // 1000, lookups.LAST_SECOND, "effective_at")
                effective_at_ms = request.effective_at * 1000
            version = await records.prices.add(model, effective_at_ms, OPERATOR, rates)
        log.info(
            "price set",
            model=model,
            price_id=version.id,
            effective_at_ms=effective_at_ms,
            key_id=request.actor.key_id,
            user_agent=request.actor.user_agent,
        )
        return pb.SetPriceResponse(price=_shown(version))

    async def sync(self, shipped: Mapping[str, Rates], configured: Mapping[str, Rates]) -> None:
        """Adds what the shipped book and the file of models say anew. Any number of processes may: it is added once."""
        async with self._store.transaction() as records:
            await records.prices.lock()
            versions = await records.prices.versions()
            soon_ms = self._soon_ms()
            known = {version.model for version in versions}
            last = {(version.source, version.model): version.rates for version in versions}
            by_time = sorted(versions, key=lambda version: (version.effective_at_ms, version.id))
            own = {version.model for version in by_time if version.source != DEFAULT}
            for source, book in ((DEFAULT, shipped), (FILE, configured)):
                for model, rates in book.items():
                    # A list price that has changed is no reason to give up a price of one's own.
                    if last.get((source, model)) == rates or (source == DEFAULT and model in own):
                        continue
                    effective_at_ms = soon_ms if model in known else 0
                    version = await records.prices.add(model, effective_at_ms, source, rates)
                    log.info("price added", model=model, source=source, price_id=version.id)

    def _soon_ms(self) -> int:
        """The first whole second that is far enough ahead."""
        return -(-(int(self._clock() * 1000) + LEAD_MS) // 1000) * 1000


def configured(catalog: Catalog, strict: bool = True) -> Mapping[str, Rates]:
    """The prices of the file of models. For one that cannot be used raises SettingsError, or, not `strict`, logs it:
    that model keeps the price that it has, and without one is not served."""
    found: dict[str, Rates] = {}
    for spec in catalog:
        try:
            rates = _rates(spec)
        except SettingsError as error:
            if strict:
                raise
            log.error("a configured price cannot be used", model=spec.name, error=str(error))
            continue
        if rates is not None:
            found[spec.name] = rates
    return found


def _rates(spec: ModelSpec) -> Rates | None:
    if spec.free and spec.price:
        raise SettingsError(f"MODELPLANE_CONFIG: model '{spec.name}' is free and has a price; remove one of them")
    if spec.free:
        return Rates(free=True)
    if not spec.price:
        return None
    try:
        return parse(spec.price)
    except RatesError as error:
        raise SettingsError(f"MODELPLANE_CONFIG: model '{spec.name}': price: {error}") from error


def _shown(version: Version) -> pb.Price:
    return pb.Price(
        id=version.id,
        model=version.model,
        effective_at=version.effective_at_ms // 1000,
        source=version.source,
        rates_json=encode(version.rates),
    )
