"""Money as its owners meet it: what usage costs, spend limits that hold, credits that run out, and the audit."""

import asyncio
import time
from typing import Any, Final

import psycopg
import pytest
from openai import AsyncOpenAI, OpenAI, RateLimitError
from openai.types.chat import ChatCompletionMessageParam

from tests.journeys.platform_process import PlatformProcess, wait_until
from tests.journeys.test_scripted_platform import run_command
from tests.journeys.test_tenancy import admin_sdk, command, new_project, sdk_with

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
FAST: Final = "scripted-fast"
INPUT, CACHED, OUTPUT = 2_500, 1_250, 10_000
"""Nano-dollars per token of the model."""
CENT: Final = 10_000_000


def cost(usage: Any) -> int:
    cached = usage.prompt_tokens_details.cached_tokens
    return int((usage.prompt_tokens - cached) * INPUT + cached * CACHED + usage.completion_tokens * OUTPUT)


def spent(platform: PlatformProcess, project_id: str) -> int:
    """Nano-dollars of a project, as the ledger has them."""
    with psycopg.connect(platform.database_url) as connection:
        row = connection.execute(
            "SELECT coalesce(sum(nanodollars), 0) FROM usage_records WHERE project_id = %s", (project_id,)
        ).fetchone()
    assert row
    return int(row[0])


def billed(platform: PlatformProcess, project_id: str) -> int:
    """Requests of a project in the ledger."""
    with psycopg.connect(platform.database_url) as connection:
        row = connection.execute("SELECT count(*) FROM usage_records WHERE project_id = %s", (project_id,)).fetchone()
    assert row
    return int(row[0])


def test_usage_and_costs_add_up(scripted_platform: PlatformProcess) -> None:
    project_id, client = new_project(scripted_platform, "Adding up")
    began = int(time.time())
    answers = [client.chat.completions.create(model=FAST, messages=HELLO) for _ in range(3)]
    stream = client.chat.completions.create(
        model=FAST, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    usages = [answer.usage for answer in answers] + [[chunk.usage for chunk in stream][-1]]
    expected = sum(cost(usage) for usage in usages)
    wait_until(lambda: spent(scripted_platform, project_id) == expected, 30, "all is in the ledger")

    organization = admin_sdk(scripted_platform).admin.organization
    page = organization.usage.completions(
        start_time=began, bucket_width="1d", project_ids=[project_id], group_by=["project_id", "model"]
    )
    [result] = [result for bucket in page.data for result in bucket.results]
    shown: dict[str, Any] = result.to_dict()
    assert (shown["project_id"], shown["model"], shown["num_model_requests"]) == (project_id, FAST, 4)
    assert shown["input_tokens"] == sum(usage.prompt_tokens for usage in usages if usage)
    assert shown["output_tokens"] == sum(usage.completion_tokens for usage in usages if usage)

    costs = organization.usage.costs(start_time=began, project_ids=[project_id], group_by=["line_item"])
    shares: list[dict[str, Any]] = [result.to_dict() for bucket in costs.data for result in bucket.results]
    lines = {share["line_item"]: share["amount"]["value"] for share in shares}
    assert sum(lines.values()) == pytest.approx(expected / 1e9)
    assert f"{FAST}, output" in lines
    assert FAST in run_command(scripted_platform, "usage", "costs", "--by", "line_item")


def test_a_spend_limit_is_not_overrun_and_refuses_nobody_early(scripted_platform: PlatformProcess) -> None:
    """Whatever the requests might have used at worst, those that fit are served, and no more."""
    project_id, client = new_project(scripted_platform, "Thrifty")
    one = cost(client.chat.completions.create(model=FAST, messages=HELLO).usage)
    admin_sdk(scripted_platform).admin.organization.projects.spend_limit.update(
        project_id, threshold_amount=1, currency="USD", interval="month"
    )
    fit = CENT // one - 1

    async def crowd() -> list[str]:
        async with scripted_platform.async_sdk(max_retries=0) as shared:
            mine = shared.with_options(api_key=client.api_key)
            return await asyncio.gather(*(ask(mine) for _ in range(3 * fit)))

    async def ask(client: AsyncOpenAI) -> str:
        try:
            # The worst case of one is as much as the whole limit.
            answer = await client.chat.completions.create(model=FAST, messages=HELLO, max_tokens=CENT // OUTPUT)
        except RateLimitError as error:
            assert error.code == "insufficient_quota", error
            assert "retry-after" not in error.response.headers
            return "refused"
        return answer.choices[0].finish_reason

    ended = asyncio.run(crowd())
    # The last ones may have got what there was, and ended by their length.
    served = ended.count("stop") + ended.count("length")
    wait_until(lambda: billed(scripted_platform, project_id) == 1 + served, 30, "all is in the ledger")
    # Near the end they take turns, and on a busy machine some lose patience.
    assert CENT - 5 * one < spent(scripted_platform, project_id) <= CENT
    assert served >= fit - 4, (served, fit)
    limit = admin_sdk(scripted_platform).admin.organization.projects.spend_limit
    limit.update(project_id, threshold_amount=100, currency="USD", interval="month")
    wait_until(lambda: answers(client), 8, "a raised limit lets through at once")


def answers(client: OpenAI) -> bool:
    try:
        return bool(client.chat.completions.create(model=FAST, messages=HELLO).id)
    except RateLimitError:
        return False


def test_prepaid_credits_run_out_and_are_filled_up(scripted_platform: PlatformProcess) -> None:
    made = command(scripted_platform, "orgs", "create", "Prepaid")
    organization_id = made["id"]
    of = ("--organization", organization_id)
    run_command(scripted_platform, "orgs", "tier", "5", *of)
    run_command(scripted_platform, "orgs", "terms", "prepaid", *of)
    client = sdk_with(scripted_platform, command(scripted_platform, "keys", "create", *of)["secret"])
    assert not answers(client)
    run_command(scripted_platform, "credits", "grant", "0.01", *of)
    wait_until(lambda: answers(client), 8, "a grant lets through at once")
    while answers(client):
        pass
    run_command(scripted_platform, "payments", "record", "10", "--id", "wire-1", *of)
    run_command(scripted_platform, "payments", "record", "10", "--id", "wire-1", *of)
    wait_until(lambda: answers(client), 8, "a payment lets through at once")
    balance = command(scripted_platform, "credits", "show", *of)
    assert "10" in str(balance)


def test_the_audit_is_clean(scripted_platform: PlatformProcess) -> None:
    assert run_command(scripted_platform, "audit")
