"""Lines that are written later say what they would have said at once."""

import asyncio
import logging
import time
from collections.abc import Iterator

import pytest

from services import context
from services.gateway import access_log
from services.gateway.access_log import MOST_LINES, AccessLog


class Lines(logging.Handler):
    """What was written: the request's id as a log line has it, when it happened, and the fields."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[tuple[str, float, dict[str, object]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.written.append((context.request_id(), record.created, record.__dict__["fields"]))


@pytest.fixture
def lines() -> Iterator[Lines]:
    logger, handler = logging.getLogger(access_log.__name__), Lines()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


async def test_lines_are_written_soon_each_with_its_own_request_and_time(lines: Lines) -> None:
    log, before_s = AccessLog(), time.time()
    for number in range(3):
        with context.call(f"req_{number}"):
            log.add({"status": 200 + number})
    after_s = time.time()
    assert lines.written == []
    async with asyncio.timeout(30):
        while not lines.written:
            await asyncio.sleep(0.01)
    assert [(request_id, fields) for request_id, _, fields in lines.written] == [
        ("req_0", {"status": 200}),
        ("req_1", {"status": 201}),
        ("req_2", {"status": 202}),
    ]
    assert all(before_s <= at_s <= after_s for _, at_s, _ in lines.written)
    assert context.request_id() == ""


async def test_many_lines_do_not_wait(lines: Lines) -> None:
    log = AccessLog()
    for number in range(MOST_LINES + 1):
        log.add({"number": number})
    assert len(lines.written) == MOST_LINES
    log.write()
    assert [fields["number"] for _, _, fields in lines.written] == list(range(MOST_LINES + 1))
