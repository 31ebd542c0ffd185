"""/healthz, /readyz and /metrics: for orchestrators and monitoring, without a key.

Healthy means that this process answers. Ready means that it is serving and everything it depends on answers too.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from services import telemetry
from services.faults import Fault
from services.gateway.calls import Call

Ping = Callable[[], Awaitable[None]]

PING_TIMEOUT_S = 2.0


class Operations:
    """The three endpoints. `pings` gives the checks by name, `serving` whether start is over and stop not begun."""

    def __init__(self, pings: Callable[[], Mapping[str, Ping]], serving: Callable[[], bool]) -> None:
        self._pings = pings
        self._serving = serving

    async def healthz(self, call: Call) -> None:
        await call.respond(200, b'{"status":"ok"}')

    async def readyz(self, call: Call) -> None:
        """200, or 503 with what is missing and why."""
        pings = self._pings()
        reasons = await asyncio.gather(*(_missing(ping) for ping in pings.values()))
        missing = {name: reason for name, reason in zip(pings, reasons, strict=True) if reason}
        if not self._serving():
            missing["platform"] = "It is starting or stopping."
        status, text = (503, "not ready") if missing else (200, "ready")
        await call.respond(status, msgspec.json.encode({"status": text, "missing": missing}))

    async def metrics(self, call: Call) -> None:
        await call.respond(
            200, telemetry.exposition(), content_type=(b"content-type", telemetry.EXPOSITION_TYPE.encode())
        )


async def _missing(ping: Ping) -> str:
    """Why the dependency does not answer, "" when it does."""
    try:
        async with asyncio.timeout(PING_TIMEOUT_S):
            await ping()
    except TimeoutError:
        return f"It did not answer within {PING_TIMEOUT_S:g} seconds."
    except Fault as fault:
        return fault.message
    return ""
