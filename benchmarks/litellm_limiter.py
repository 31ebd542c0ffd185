"""LiteLLM's rate limiter under the load of `benchmarks.limiters`. Runs in LiteLLM's environment, on its own.

It is `_PROXY_MaxParallelRequestsHandler_v3`, asked as its proxy asks it before every request, with limits on
requests and tokens of a key and a team: four counters, as ours. What it does after a request is left out.
Arguments: port of Valkey (0: its cache in memory), clients, seconds. Prints what `limiters.Cost` holds.
"""

import asyncio
import json
import sys
import time
from typing import Any
from uuid import uuid4

import uvloop


def limiter(port: int) -> tuple[Any, Any]:
    """The limiter and its cache."""
    from litellm.caching.caching import DualCache
    from litellm.caching.redis_cache import RedisCache
    from litellm.proxy.hooks.parallel_request_limiter_v3 import _PROXY_MaxParallelRequestsHandler_v3
    from litellm.proxy.utils import InternalUsageCache

    cache = DualCache(redis_cache=RedisCache(host="127.0.0.1", port=port)) if port else DualCache()
    return _PROXY_MaxParallelRequestsHandler_v3(InternalUsageCache(cache)), cache


async def load(port: int, clients: int, seconds: float) -> dict[str, float]:
    from litellm.proxy._types import UserAPIKeyAuth

    handler, cache = limiter(port)
    plenty = 10**12
    who = UserAPIKeyAuth(
        api_key="0" * 64,
        rpm_limit=plenty,
        tpm_limit=plenty,
        team_id="team-1",
        team_rpm_limit=plenty,
        team_tpm_limit=plenty,
    )
    decisions = 0

    async def client(until_s: float) -> None:
        nonlocal decisions
        while time.monotonic() < until_s:
            data = {
                "model": "m",
                "messages": [{"role": "user", "content": "Say something short."}],
                "max_tokens": 200,
                "metadata": {},
                "litellm_call_id": str(uuid4()),
            }
            await handler.async_pre_call_hook(who, cache, data, "acompletion")
            decisions += 1
            await asyncio.sleep(0)

    await asyncio.gather(*(client(time.monotonic() + 1.0) for _ in range(clients)))
    warm_up, decisions = decisions, 0
    started_s, cpu_s = time.monotonic(), time.process_time()
    await asyncio.gather(*(client(started_s + seconds) for _ in range(clients)))
    return {
        "decisions": decisions,
        "elapsed_s": time.monotonic() - started_s,
        "cpu_s": time.process_time() - cpu_s,
        "warm_up_decisions": warm_up,
    }


if __name__ == "__main__":
    port, clients, seconds = sys.argv[1:]
    print("COST " + json.dumps(uvloop.run(load(int(port), int(clients), float(seconds)))))
