"""Requests made from OpenAI's specification, right ones and wrong ones, by schemathesis.

Whatever they say, the answer is one that the specification knows: none breaks the gateway, hangs, or is taken for
another.
"""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode

from tests.fakes.control import KEY
from tests.journeys.checked import shape_of
from tests.services.gateway.conftest import MODEL, running_edge
from tests.services.gateway.schemas import assert_matches

DOCUMENT = json.loads(Path(__file__).with_name("openai_requests.json").read_text())
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = [(path, method.upper()) for path, methods in DOCUMENT["paths"].items() for method in methods]
# An operation with neither a body nor a query can hardly be asked wrongly.
VARIED = [
    (path, method)
    for path, method in OPERATIONS
    if (operation := DOCUMENT["paths"][path][method.lower()]).get("requestBody")
    or any(parameter["in"] == "query" for parameter in operation.get("parameters", ()))
]
EXAMPLES = 60
TIMEOUT_S = 20


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Of a gateway in a thread of its own: schemathesis does not wait as asyncio does."""
    ready, stop = threading.Event(), asyncio.Event()
    urls: list[str] = []
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with running_edge() as edge:
            await edge.add_replica()
            urls.append(edge.url)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(30)
    try:
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_right_requests_get_a_specified_answer(url: str, path: str, method: str) -> None:
    ask(url, path, method, GenerationMode.POSITIVE)


@pytest.mark.parametrize(("path", "method"), VARIED)
def test_wrong_requests_get_a_specified_answer(url: str, path: str, method: str) -> None:
    ask(url, path, method, GenerationMode.NEGATIVE)


def ask(url: str, path: str, method: str, mode: GenerationMode) -> None:
    """Many times. Raises AssertionError for an answer that is none."""

    @settings(max_examples=EXAMPLES, phases=(Phase.generate,), suppress_health_check=list(HealthCheck))
    @given(case=SCHEMA[path][method].as_strategy(generation_mode=mode))
    def check(case: Case[Any]) -> None:
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            # Names that are made up are of no model.
            case.body["model"] = MODEL
        response = case.call(base_url=url, headers={"authorization": f"Bearer {KEY}"}, timeout=TIMEOUT_S)
        assert response.status_code < 500, response.text
        assert response.headers["x-request-id"]
        (content_type,) = response.headers["content-type"]
        if content_type.startswith("text/event-stream"):
            assert response.text.endswith("data: [DONE]\n\n")
            return
        answer: Any = json.loads(response.content)
        if response.status_code >= 400:
            assert_matches("ErrorResponse", answer)
        elif whole := shape_of(method, path).whole:
            assert_matches(whole, answer)

    check()
