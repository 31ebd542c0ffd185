"""The request id and the deadline of a call."""

import asyncio

from services import context


def test_outside_a_call_there_is_nothing() -> None:
    assert context.request_id() == ""
    assert context.remaining_s() is None


def test_a_call_has_an_id_and_a_deadline_that_never_goes_below_zero() -> None:
    with context.call("req_1", 10.0):
        assert context.request_id() == "req_1"
        remaining = context.remaining_s()
        assert remaining is not None and 9.0 < remaining <= 10.0
        with context.call("req_2", -1.0):
            assert (context.request_id(), context.remaining_s()) == ("req_2", 0.0)
        with context.call("req_3"):
            assert context.remaining_s() is None
        assert context.request_id() == "req_1"
    assert context.request_id() == ""


def test_a_failed_call_leaves_nothing_behind() -> None:
    try:
        with context.call("req_1", 1.0):
            raise ValueError
    except ValueError:
        assert (context.request_id(), context.remaining_s()) == ("", None)


async def test_tasks_inherit_the_call_and_do_not_share_it() -> None:
    async def inner(name: str) -> str:
        with context.call(f"{context.request_id()}/{name}"):
            await asyncio.sleep(0)
            return context.request_id()

    with context.call("req"):
        assert list(await asyncio.gather(inner("a"), inner("b"))) == ["req/a", "req/b"]
        assert context.request_id() == "req"
