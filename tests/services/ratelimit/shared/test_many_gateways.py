"""Real processes hammer one limit in a real Valkey: never a request or token too many, and nearly all of them used."""

import time
from pathlib import Path

import pytest

from benchmarks.limit_fleet import SECOND_NS, allowed, fleet, server_ns
from benchmarks.valkey import ValkeyServer
from services.ratelimit.shared.connection import Connection

PLENTY = (10_000_000, 60_000)
SECONDS = 3.0
LEAST = 0.97
# Of what is reserved while a bucket is nearly full, the unused part has mostly refilled when it comes back: it is gone.
LEAST_GIVEN_BACK = 0.9


@pytest.mark.parametrize("bound", ["requests", "tokens", "tokens given back"])
async def test_eight_gateways_grant_the_limit_and_no_more(
    tmp_path: Path, valkey_process: ValkeyServer, valkey: Connection, bound: str
) -> None:
    requests, tokens = (2_000, 2_000_000), PLENTY
    if bound != "requests":
        requests, tokens = PLENTY, (60_000, 300_000)
    share = 0.5 if bound == "tokens given back" else 1.0
    orders = {"requests": requests, "tokens": tokens, "request_tokens": 60, "used_share": share, "seconds": SECONDS}
    with fleet(tmp_path, valkey_process.url, 8, **orders) as gateways:
        before_ns = await server_ns(valkey)
        gateways.start()
        time.sleep(SECONDS)
        granted_ns = await server_ns(valkey) - before_ns
        gateways.wait()
        total = gateways.total()
    elapsed_ns = await server_ns(valkey) - before_ns
    assert total.errors == 0
    assert total.requests <= allowed(requests, elapsed_ns)
    assert total.tokens <= allowed(tokens, elapsed_ns)
    granted, limit = (total.requests, requests) if bound == "requests" else (total.tokens, tokens)
    part = granted / allowed(limit, granted_ns)
    assert part >= (LEAST_GIVEN_BACK if share < 1 else LEAST)


async def test_a_killed_gateway_takes_only_its_leases_with_it(
    tmp_path: Path, valkey_process: ValkeyServer, valkey: Connection
) -> None:
    requests = (3_000, 2_000_000)
    orders = {"requests": requests, "tokens": PLENTY, "request_tokens": 10, "seconds": SECONDS}
    with fleet(tmp_path, valkey_process.url, 4, **orders) as gateways:
        before_ns = await server_ns(valkey)
        gateways.start()
        time.sleep(0.3)
        gateways.processes[0].kill()
        time.sleep(SECONDS - 0.3)
        granted_ns = await server_ns(valkey) - before_ns
        gateways.wait()
        total = gateways.total()
    elapsed_ns = await server_ns(valkey) - before_ns
    assert total.errors == 0
    assert total.requests <= allowed(requests, elapsed_ns)
    # A lease is at most a tenth of what was left, and refills.
    assert total.requests >= allowed(requests, granted_ns) * LEAST - requests[0] / 10


async def test_without_valkey_each_gateway_grants_its_share(tmp_path: Path, own_valkey: ValkeyServer) -> None:
    requests = (1_000, 10_000_000)
    share, size = 0.1, 3
    orders = {"requests": requests, "tokens": PLENTY, "request_tokens": 10, "seconds": 4.0, "outage_share": share}
    with fleet(tmp_path, own_valkey.url, size, **orders) as gateways:
        started_s = time.monotonic()
        gateways.start()
        time.sleep(1.0)
        own_valkey.kill()
        at_outage = gateways.total()
        time.sleep(1.0)
        outage = gateways.total().requests - at_outage.requests
        # What was taken in advance may still be used; every gateway grants its share, and one request ahead of it.
        assert 0 < outage <= size * (requests[0] * share * 1.1 + 10 + 1) + requests[0] / 10
        own_valkey.start()
        gateways.wait()
        total = gateways.total()
        elapsed_ns = int((time.monotonic() - started_s) * SECOND_NS)
    assert total.errors == 0
    # The new Valkey has full buckets, and they are shared again.
    assert total.requests - outage >= requests[0] * 1.9
    assert total.requests - outage <= requests[0] + allowed(requests, elapsed_ns) + size * 2 * share * requests[0]
