"""The ten usage endpoints and costs, as the official SDK asks them; every answer fits OpenAI's specification."""

from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any, Final

import pytest
from openai.resources.admin.organization import AsyncOrganization

from modelplane.usage.v1.usage_pb2 import Attribution, ToolUsage, Usage
from services.storage import Database
from tests.services.gateway.organization.conftest import Console, Organization
from tests.services.ledger import written

DAY_S: Final = 86_400
# 2026-11-01 00:00 UTC.
NOVEMBER_S: Final = 1_793_491_200
PERIOD: Final[dict[str, Any]] = {"start_time": NOVEMBER_S, "end_time": NOVEMBER_S + DAY_S}
PRICES: Final[dict[str, Any]] = {
    "chat": {
        "input": "2.50",
        "cached_input": "1.25",
        "output": "10",
        "audio_minute": "0.006",
        "storage_gib_day": "0.24",
        "tools": {"web_search": "0.01"},
    }
}
NOBODY: Final = {"project_id": None, "user_id": None, "api_key_id": None, "model": None}


class Meter:
    """Has things used by an organisation, an hour after the other."""

    def __init__(self, database: Database, place: Organization) -> None:
        self._database = database
        self._place = place
        self._number = 0

    async def use(self, operation: str, **counts: Any) -> str:
        """The request's id."""
        self._number += 1
        who = Attribution(
            organization_id=self._place.id, project_id=self._place.project_id, key_id="key_1", user_id="user-1"
        )
        finished_at_ms = (NOVEMBER_S + self._number * 3600 + 61) * 1000
        usage = Usage(
            **{
                "request_id": f"req_{self._place.id}_{self._number}",
                "attribution": who,
                "model": "chat",
                "service_tier": "default",
                "operation": operation,
                "outcome": 1,
                "started_at_ms": finished_at_ms,
                "finished_at_ms": finished_at_ms,
                **counts,
            }
        )
        await written.add_usage(self._database, [usage])
        return usage.request_id


@pytest.fixture
async def meter(database: Database, mine: Organization) -> Meter:
    await written.add_prices(database, prices=PRICES)
    return Meter(database, mine)


async def only(ask: Callable[..., Awaitable[Any]], **query: Any) -> dict[str, Any]:
    """The only result that there is."""
    answer = await ask(**{**PERIOD, **query})
    (result,) = [result for bucket in answer.data for result in bucket.results]
    found: dict[str, Any] = result.to_dict()
    return found


async def test_completions(admin: AsyncOrganization, meter: Meter, mine: Organization) -> None:
    counts = {"input_tokens": 100, "cached_input_tokens": 60, "cache_write_tokens": 10, "output_tokens": 50}
    parts = {"input_audio_tokens": 5, "input_image_tokens": 90, "output_audio_tokens": 7, "output_image_tokens": 3}
    await meter.use("chat.completions", **counts, **parts)
    await meter.use("completions", input_tokens=1, output_tokens=2, batch=True)
    await meter.use("embeddings", input_tokens=1000)
    found = await only(admin.usage.completions)
    assert found == {
        "object": "organization.usage.completions.result",
        "input_tokens": 101,
        "input_cached_tokens": 60,
        "input_cache_write_tokens": 10,
        "input_uncached_tokens": 31,
        "output_tokens": 52,
        "input_text_tokens": 0,
        "output_text_tokens": 42,
        "input_cached_text_tokens": 60,
        "input_audio_tokens": 5,
        "input_cached_audio_tokens": 0,
        "output_audio_tokens": 7,
        "input_image_tokens": 26,
        "input_cached_image_tokens": 0,
        "output_image_tokens": 3,
        "num_model_requests": 2,
        **NOBODY,
        "batch": None,
        "service_tier": None,
    }
    grouped = await only(
        admin.usage.completions,
        batch=False,
        models=["chat", "other"],
        project_ids=[mine.project_id],
        group_by=["project_id", "user_id", "api_key_id", "model", "batch", "service_tier"],
    )
    whose = {"project_id": mine.project_id, "user_id": "user-1", "api_key_id": "key_1", "model": "chat"}
    assert {**grouped, **whose, "batch": False, "service_tier": "default"} == grouped
    assert (grouped["input_tokens"], grouped["num_model_requests"]) == (100, 1)
    nothing = await admin.usage.completions(**PERIOD, api_key_ids=["key_2"])
    assert [bucket.results for bucket in nothing.data] == [[]]


async def test_what_is_no_completion(admin: AsyncOrganization, meter: Meter) -> None:
    usage = admin.usage
    await meter.use("embeddings", input_tokens=7)
    await meter.use("moderations", input_tokens=8)
    await meter.use("images.generations", images=3, image_size="1024x1024")
    await meter.use("images.edits", images=2, image_size="256x256")
    await meter.use("audio.speech", characters=9)
    await meter.use("audio.transcriptions", audio_ms=1400)
    await meter.use("audio.translations", audio_ms=1300)
    name = "organization.usage"
    one = {"num_model_requests": 1, **NOBODY}
    assert await only(usage.embeddings) == {"object": f"{name}.embeddings.result", "input_tokens": 7, **one}
    assert await only(usage.moderations) == {"object": f"{name}.moderations.result", "input_tokens": 8, **one}
    assert await only(usage.audio_speeches) == {"object": f"{name}.audio_speeches.result", "characters": 9, **one}
    transcribed = {"object": f"{name}.audio_transcriptions.result", "seconds": 3, **one, "num_model_requests": 2}
    assert await only(usage.audio_transcriptions) == transcribed
    images = {"object": f"{name}.images.result", "images": 5, **one, "num_model_requests": 2}
    assert await only(usage.images) == {**images, "size": None, "source": None}
    generated = {**images, "images": 3, "num_model_requests": 1, "size": "1024x1024", "source": "image.generation"}
    assert await only(usage.images, sources=["image.generation"], group_by=["size", "source"]) == generated
    assert (await only(usage.images, sizes=["256x256"]))["images"] == 2


async def test_tools_and_storage(admin: AsyncOrganization, meter: Meter, mine: Organization) -> None:
    called = [ToolUsage(tool="web_search", calls=3), ToolUsage(tool="file_search", calls=2)]
    await meter.use("responses", input_tokens=1, tools=[*called, ToolUsage(tool="code_interpreter", calls=1)])
    await meter.use("vector_stores", stored_byte_seconds=1024 * DAY_S)
    usage, name = admin.usage, "organization.usage"
    web = {"num_model_requests": 1, "num_requests": 3, **NOBODY, "context_level": None}
    files = {"num_requests": 2, "project_id": None, "user_id": None, "api_key_id": None, "vector_store_id": None}
    assert await only(usage.web_search_calls) == {"object": f"{name}.web_searches.result", **web}
    assert await only(usage.file_search_calls) == {"object": f"{name}.file_searches.result", **files}
    sessions = {"object": f"{name}.code_interpreter_sessions.result", "num_sessions": 1}
    assert await only(usage.code_interpreter_sessions) == {**sessions, "project_id": None}
    stored = {"object": f"{name}.vector_stores.result", "usage_bytes": 1024, "project_id": mine.project_id}
    assert await only(usage.vector_stores, group_by=["project_id"]) == stored


async def test_costs(admin: AsyncOrganization, meter: Meter, mine: Organization) -> None:
    calls = [ToolUsage(tool="web_search", calls=2)]
    await meter.use("chat.completions", input_tokens=1000, cached_input_tokens=200, output_tokens=100, tools=calls)
    await meter.use("audio.transcriptions", audio_ms=1500, batch=True)
    await meter.use("vector_stores", stored_byte_seconds=2**30 * 5400)
    found = await only(admin.usage.costs)
    nothing = {"quantity": None, "quantity_unit": None, "line_item": None, "project_id": None, "api_key_id": None}
    dollars = 0.002 + 0.00025 + 0.001 + 0.02 + 0.000075 + 0.015
    assert found.pop("amount") == {"value": pytest.approx(dollars, abs=1e-12), "currency": "usd"}
    assert found == {"object": "organization.costs.result", **nothing}
    answer = await admin.usage.costs(**PERIOD, group_by=["line_item", "project_id", "api_key_id"])
    lines: dict[str, Any] = {}
    for result in answer.data[0].results:
        line: Any = result
        assert (line.project_id, line.api_key_id) == (mine.project_id, "key_1")
        lines[line.line_item] = (line.amount.value, line.quantity, line.quantity_unit)
    assert lines == {
        "chat, input": (0.002, 800, "tokens"),
        "chat, cached_input": (0.00025, 200, "tokens"),
        "chat, output": (0.001, 100, "tokens"),
        "chat, tool:web_search": (0.02, 2, "calls"),
        "chat, audio": (0.00015, 1.5, "duration_seconds"),
        "chat, discount": (-0.000075, None, None),
        "chat, storage": (0.015, 1.5, "gibibyte_hours"),
    }


@pytest.mark.parametrize(("width", "limit"), [("1d", 2), ("1h", 7), ("1m", 500)])
async def test_pages_have_every_bucket_once(admin: AsyncOrganization, meter: Meter, width: Any, limit: int) -> None:
    for _ in range(10):
        await meter.use("completions", output_tokens=1)
    since_s, until_s = NOVEMBER_S + 61, NOVEMBER_S + DAY_S + 30
    found: list[Any] = []
    page: Any = {}
    while True:
        answer = await admin.usage.completions(
            start_time=since_s, end_time=until_s, bucket_width=width, limit=limit, **page
        )
        assert answer.object == "page" and len(answer.data) <= limit
        found += answer.data
        assert answer.has_more == (answer.next_page is not None)
        if not answer.next_page:
            break
        page = {"page": answer.next_page}
    assert found[0].start_time == since_s and found[-1].end_time == until_s
    for before, after in pairwise(found):
        assert before.end_time == after.start_time
        assert after.start_time % {"1m": 60, "1h": 3600, "1d": DAY_S}[width] == 0
    assert sum(result.output_tokens for bucket in found for result in bucket.results) == 10


@pytest.mark.parametrize(("width", "buckets"), [("1d", 7), ("1h", 24), ("1m", 60)])
async def test_how_many_buckets_a_page_has(admin: AsyncOrganization, width: Any, buckets: int) -> None:
    answer = await admin.usage.embeddings(start_time=NOVEMBER_S - 90 * DAY_S, end_time=NOVEMBER_S, bucket_width=width)
    assert len(answer.data) == buckets and answer.has_more


async def test_others_see_nothing(console: Console, other: Organization, meter: Meter, mine: Organization) -> None:
    await meter.use("completions", output_tokens=1)
    async with console.sdk(other) as theirs:
        queries: list[Any] = [{}, {"project_ids": [mine.project_id]}, {"api_key_ids": ["key_1"]}]
        for query in queries:
            assert not (await theirs.usage.completions(**PERIOD, **query)).data[0].results
            assert not (await theirs.usage.costs(**PERIOD, **query)).data[0].results


async def test_arrays_in_both_ways(console: Console, mine: Organization, meter: Meter) -> None:
    await meter.use("completions", output_tokens=1)
    start = f"/v1/organization/usage/completions?start_time={NOVEMBER_S}&end_time={NOVEMBER_S + DAY_S}"
    for brackets in ("", "[]", "%5B%5D"):
        both = f"models{brackets}=other&models{brackets}=chat"
        answer = await console.ask(mine.admin_key, "GET", f"{start}&group_by{brackets}=model&{both}")
        (result,) = answer.json()["data"][0]["results"]
        assert result["model"] == "chat"
        none = await console.ask(mine.admin_key, "GET", f"{start}&models{brackets}=other")
        assert none.json()["data"][0]["results"] == []


@pytest.mark.parametrize(
    ("query", "refusal"),
    [
        ("usage/completions", ("missing_required_parameter", "start_time")),
        ("usage/completions?start_time=x", ("invalid_type", "start_time")),
        ("usage/completions?start_time=-1", ("invalid_value", "start_time")),
        ("usage/completions?start_time=5&end_time=5", ("invalid_value", "end_time")),
        ("usage/completions?start_time=5&end_time=0", ("invalid_value", "end_time")),
        ("usage/completions?start_time=5&end_time=999999999999999999", ("invalid_value", "end_time")),
        ("usage/completions?start_time=1&bucket_width=1w", ("invalid_value", "bucket_width")),
        ("usage/completions?start_time=1&limit=32", ("integer_above_max_value", "limit")),
        ("usage/completions?start_time=1&limit=0", ("integer_below_min_value", "limit")),
        ("usage/completions?start_time=1&limit=169&bucket_width=1h", ("integer_above_max_value", "limit")),
        ("usage/completions?start_time=1&limit=1441&bucket_width=1m", ("integer_above_max_value", "limit")),
        ("usage/completions?start_time=1&group_by=size", ("invalid_value", "group_by")),
        ("usage/completions?start_time=1&group_by[]=", ("invalid_value", "group_by")),
        ("usage/completions?start_time=1&group_by[]=api_source", ("unsupported_value", "group_by")),
        ("usage/completions?start_time=1&batch=yes", ("invalid_type", "batch")),
        ("usage/completions?start_time=1&page=x", ("invalid_value", "page")),
        ("usage/completions?start_time=1&page=%00", ("invalid_value", "page")),
        ("usage/completions?start_time=1&sizes=256x256", ("unknown_parameter", "sizes")),
        ("usage/embeddings?start_time=1&batch=true", ("unknown_parameter", "batch")),
        ("usage/images?start_time=1&sources=camera", ("invalid_value", "sources")),
        ("usage/vector_stores?start_time=1&models=a", ("unknown_parameter", "models")),
        ("usage/file_search_calls?start_time=1&vector_store_ids[]=a", ("unsupported_parameter", "vector_store_ids")),
        ("usage/web_search_calls?start_time=1&group_by=context_level", ("unsupported_value", "group_by")),
        ("costs?start_time=1&bucket_width=1h", ("invalid_value", "bucket_width")),
        ("costs?start_time=1&limit=181", ("integer_above_max_value", "limit")),
        ("costs?start_time=1&group_by=model", ("invalid_value", "group_by")),
        ("costs?start_time=1&user_ids=a", ("unknown_parameter", "user_ids")),
    ],
)
async def test_refusals(console: Console, mine: Organization, query: str, refusal: tuple[str, str]) -> None:
    assert await console.refused(mine.admin_key, "GET", f"/{query}") == (400, *refusal)


@pytest.mark.parametrize("value", ["%00", "%ff", "%F0%9F%98%80", "x" * 3000, "'"])
async def test_strange_values_find_nothing(console: Console, mine: Organization, meter: Meter, value: str) -> None:
    await meter.use("completions", output_tokens=1)
    for report in ("usage/completions", "costs"):
        for name in ("project_ids", "api_key_ids[]"):
            path = f"/v1/organization/{report}?start_time={NOVEMBER_S}&end_time={NOVEMBER_S + DAY_S}&{name}={value}"
            answer = await console.ask(mine.admin_key, "GET", path)
            assert answer.status_code == 200 and answer.json()["data"][0]["results"] == []
