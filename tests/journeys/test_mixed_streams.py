"""Many clients at once, some of which go away: afterwards nothing is held and nothing has grown."""

import asyncio
import random
from collections.abc import Awaitable
from typing import Any

import psutil
import pytest
from openai import AsyncOpenAI

from tests.journeys.platform_process import PlatformProcess, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

AT_ONCE = 64
ROUNDS = 4
# What one round may leave behind, once caches and pools are warm.
GROWTH_BYTES = 12 * 1024 * 1024
# Sessions to replicas that were not there before.
MORE_TASKS = 8


async def mixed(platform: PlatformProcess, seed: int) -> None:
    """Plain and streamed requests; a third of them is given up half-way."""
    choose = random.Random(seed)
    kept = platform.credentials
    async with AsyncOpenAI(base_url=kept["base_url"], api_key=kept["api_key"], max_retries=0) as sdk:

        async def one(number: int) -> None:
            model = choose.choice(("scripted-fast", "scripted-fast", "scripted-slow"))
            tokens = 20 if model == "scripted-fast" else 30
            stream = choose.random() < 0.6
            asked: Awaitable[Any] = sdk.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": f"Number {number}. " * choose.randrange(1, 60)}],
                max_tokens=tokens,
                stream=stream,
            )
            if number % 3 == 0:
                try:
                    async with asyncio.timeout(choose.uniform(0.01, 0.6)):
                        answer = await asked
                        if stream:
                            async for _ in answer:
                                pass
                except TimeoutError:
                    pass
            elif stream:
                chunks = [chunk async for chunk in await asked]
                assert chunks[-1].choices[0].finish_reason
            else:
                assert (await asked).usage.completion_tokens == tokens

        await asyncio.gather(*(one(number) for number in range(AT_ONCE)))


def test_nothing_is_left_of_many_mixed_streams(scripted_platform: PlatformProcess) -> None:
    held = ("modelplane_requests_in_flight", "modelplane_router_running_requests", "modelplane_reservations_open")

    def idle() -> bool:
        return not any(scripted_platform.metric(name) for name in held)

    tasks = scripted_platform.metric("modelplane_tasks")

    main = psutil.Process(scripted_platform.process.pid)
    sizes = []
    for seed in range(ROUNDS):
        asyncio.run(mixed(scripted_platform, seed))
        wait_until(idle, 30, "every request has ended and given back its slot")
        sizes.append(main.memory_info().rss)
    wait_until(lambda: scripted_platform.metric("modelplane_tasks") <= tasks + MORE_TASKS, 30, "no task is left")
    assert sizes[-1] - sizes[1] < GROWTH_BYTES * (ROUNDS - 2), sizes
