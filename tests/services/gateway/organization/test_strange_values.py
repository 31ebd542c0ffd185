"""Every endpoint of the admin API with values that make no sense: each gets an answer that says so, none breaks it."""

from collections.abc import Iterator
from typing import Any

import pytest

from services.scopes import SCOPES
from tests.services.gateway.organization.conftest import Console, Organization
from tests.services.gateway.organization.walk import BODIES, Endpoint, Walk, begin

VALUES: tuple[Any, ...] = (
    "",
    "\0",
    "a\nb",
    "x" * 5000,
    "\U0001f600",
    0,
    -1,
    2**31,
    2**63,
    2**64,
    1.5,
    True,
    [],
    [None],
    {},
)
NAMES = ("%00", "%ff", "%0A", "x" * 3000, "%F0%9F%98%80", "%2e%2e", "%25")
QUERIES = (
    "limit=0&limit=1",
    "after=%00",
    "before=%00",
    "after=%ff",
    "after=x&before=y",
    "limit=1e3",
    "limit=%D9%A3",
    "order=",
    "limit=999999999999999999999",
    "%00=1",
    "effective_at[gt]=999999999999999999",
    "effective_at[lte]=-999999999999999999",
    "actor_emails[]=%00",
    "project_ids=%00&event_types[]=%00",
)


@pytest.fixture
async def walk(console: Console, mine: Organization, other: Organization) -> Walk:
    return await begin(console, mine, other)


def administrative(walk: Walk) -> list[Endpoint]:
    """Without the ends: what is not there any more cannot break."""
    return [one for one in walk.endpoints if SCOPES[one.scope].administrative and not one.place_in_a_life[0]]


def strange(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The body with one value, on whatever level, replaced."""
    for name, value in body.items():
        yield from ({**body, name: replaced} for replaced in VALUES)
        if isinstance(value, dict):
            yield from ({**body, name: inner} for inner in strange(value))
        if isinstance(value, list):
            yield from ({**body, name: [replaced]} for replaced in VALUES)


async def status(walk: Walk, endpoint: Endpoint, path: str, body: object = None) -> int:
    return (await walk.console.ask(walk.key(walk.mine, endpoint), endpoint.method, path, body)).status_code


async def test_bodies(walk: Walk) -> None:
    calls = 0
    for endpoint in administrative(walk):
        for body in strange(BODIES.get(endpoint.operation, {})):
            calls += 1
            assert await status(walk, endpoint, endpoint.fill(walk.ids), body) in (200, 400, 404), (endpoint, body)
    assert calls > 500


async def test_names(walk: Walk) -> None:
    for endpoint in administrative(walk):
        for parameter in endpoint.parameters:
            for name in NAMES:
                ids = {**walk.ids, parameter: name} | ({"project_alert_id": name} if parameter == "alert_id" else {})
                answer = await status(walk, endpoint, endpoint.fill(ids), BODIES.get(endpoint.operation))
                assert answer in (400, 404, 405), (endpoint, name)


async def test_queries(walk: Walk) -> None:
    for endpoint in administrative(walk):
        if endpoint.operation.endswith(".list"):
            for query in QUERIES:
                answer = await status(walk, endpoint, f"{endpoint.fill(walk.ids)}?{query}")
                assert answer in (200, 400), (endpoint, query)
