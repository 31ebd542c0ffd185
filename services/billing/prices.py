"""The price book in memory, in step with the database, and what it says of a request that has not run yet.

Kept true: a version that is committed is known within the time of a notification; what was read once serves on while
the database is away. What a request used is priced by `services.pricing.cost` alone; the tariffs here are that
function's answers for a million tokens, so that a hold costs no more than two multiplications.
"""

import asyncio
from contextlib import aclosing, suppress
from typing import Final

from modelplane.usage.v1.usage_pb2 import Usage
from services import telemetry
from services.billing.store import prices
from services.billing.store.prices import Connection, PricesStore
from services.billing.tasks import end
from services.faults import Unavailable
from services.pricing import cost
from services.pricing.book import Book
from services.pricing.cost import CLASSES, MILLION, Price, Unpriced

log = telemetry.logger(__name__)

RETRY_S: Final = 1.0


class Tariff:
    """What the tokens of one model cost in one class: nano-dollars per million, None for what has no rate."""

    __slots__ = ("_batch", "_price", "_service_tier", "free", "input", "output")

    def __init__(self, price: Price, service_tier: str, batch: bool) -> None:
        self._price = price
        self._service_tier = service_tier
        self._batch = batch
        self.free = price.free
        self.input = _total(Usage(service_tier=service_tier, batch=batch, input_tokens=MILLION), price)
        self.output = _total(Usage(service_tier=service_tier, batch=batch, output_tokens=MILLION), price)

    def tokens(self, input_tokens: int, output_tokens: int) -> int:
        """Rounded up. Raises Unpriced."""
        per_input, per_output = self.input, self.output
        if per_input is None or per_output is None:
            if (per_input is None and input_tokens) or (per_output is None and output_tokens):
                raise Unpriced("output" if per_output is None and output_tokens else "input")
            per_input, per_output = per_input or 0, per_output or 0
        return -(-(input_tokens * per_input + output_tokens * per_output) // MILLION)

    def also(self, usage: Usage) -> int:
        """What else a request will use, beside tokens. Raises Unpriced."""
        used = Usage(service_tier=self._service_tier, batch=self._batch)
        used.images = usage.images
        used.image_size, used.image_quality = usage.image_size, usage.image_quality
        used.audio_ms, used.characters = usage.audio_ms, usage.characters
        return cost.total(used, self._price)


class Prices:
    """The whole book."""

    def __init__(self, store: PricesStore) -> None:
        self.book = Book(())
        self._store = store
        self._stamp: prices.Stamp | None = None
        self._tariffs: dict[tuple[int, str, bool], Tariff] = {}
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Reads the book, now or as soon as the database can be reached, and keeps it fresh from then on."""
        with suppress(Unavailable):
            await self._read()
        self._keeping = asyncio.create_task(self._keep(), name="billing prices")

    async def close(self) -> None:
        if self._keeping is not None:
            await end([self._keeping])

    async def refresh(self, connection: Connection) -> Book:
        """The book as this transaction sees it, read only when it has changed."""
        stamp = await prices.stamp(connection)
        if stamp != self._stamp:
            book = await prices.book(connection)
            self.book, self._stamp = book, stamp
            self._tariffs.clear()
        return self.book

    def tariff(self, model: str, service_tier: str, batch: bool, at_ms: int) -> Tariff:
        """Faults: model_not_priced, database_unavailable while the book was never read."""
        price = self.book.price(model, at_ms)
        if price is None:
            if self._stamp is None:
                raise Unavailable("database_unavailable", "Prices are not known yet. Try again shortly.")
            raise not_priced(model)
        if service_tier not in CLASSES:
            service_tier = ""
        key = (price.id, service_tier, batch)
        tariff = self._tariffs.get(key)
        if tariff is None:
            tariff = self._tariffs[key] = Tariff(price, service_tier, batch)
        return tariff

    def total(self, usage: Usage) -> int:
        """What a record costs, 0 for what has no price."""
        price = self.book.price(usage.model, usage.started_at_ms)
        if price is None:
            return 0
        try:
            return cost.total(usage, price)
        except Unpriced:
            return 0

    async def _read(self) -> None:
        async with self._store.connection() as connection:
            await self.refresh(connection)

    async def _keep(self) -> None:
        while True:
            try:
                async with aclosing(self._store.changes()) as changes:
                    async for _ in changes:
                        await self._read()
            except Exception as error:
                known = isinstance(error, Unavailable)
                log.warning("prices not read", error=error, exc_info=None if known else error)
            await asyncio.sleep(RETRY_S)


def not_priced(model: str, part: str = "") -> Unavailable:
    of = f" for {part}" if part else ""
    return Unavailable(
        "model_not_priced",
        f"The model '{model}' has no price{of}, so it is not served. Its operator gives it one with "
        f"`modelplane prices set`, or declares it free with `modelplane prices free`.",
    )


def _total(usage: Usage, price: Price) -> int | None:
    try:
        return cost.total(usage, price)
    except Unpriced:
        return None
