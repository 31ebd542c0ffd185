"""Whatever pieces an engine gives: usage holds exactly their tokens, and the frames hold exactly the pieces."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from modelplane.chat_inference.v1.chat_inference_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    FINISH_REASON_UNSPECIFIED,
    Delta,
)
from modelplane.usage.v1.usage_pb2 import OUTCOME_ABORTED, OUTCOME_COMPLETED, OUTCOME_FAILED
from services.chat_inference.engines.engine import Piece
from services.chat_inference.meter import Meter
from services.chat_inference.outbox import Outbox
from tests.services.chat_inference.peer import asked

CHOICES = 3

pieces = st.lists(
    st.builds(
        Piece,
        choice=st.integers(0, CHOICES - 1),
        text=st.text(max_size=5),
        tokens=st.integers(0, 4),
        finish_reason=st.just(FINISH_REASON_UNSPECIFIED),
        cached_tokens=st.just(3),
        logprobs=st.just(()),
        added_tokens=st.just(2),
    ),
    max_size=60,
)
finishes = st.lists(st.sampled_from([FINISH_REASON_STOP, FINISH_REASON_LENGTH]), max_size=CHOICES)


@given(pieces, finishes, st.integers(1, 50), st.sampled_from([OUTCOME_ABORTED, OUTCOME_COMPLETED, OUTCOME_FAILED]))
def test_usage_is_the_sum_of_the_pieces(given, finishes, prompt, outcome) -> None:  # type: ignore[no-untyped-def]
    meter = Meter(asked("a", n=CHOICES, prompt=prompt), 1000)
    for piece in given:
        meter.add(piece)
    assert not meter.complete
    for choice, reason in enumerate(finishes):
        meter.add(Piece(choice, "", 1, reason, 3, (), 2))
    assert meter.complete == (len(finishes) == CHOICES)
    usage = meter.usage(outcome, 2000, reasoning_tokens=1)
    tokens = sum(piece.tokens for piece in given) + len(finishes)
    assert usage.output_tokens == tokens == meter.output_tokens
    read = prompt + 2 * bool(given or finishes)
    assert usage.input_tokens == (read if tokens or outcome == OUTCOME_COMPLETED else 0)
    assert usage.cached_input_tokens <= 3 and usage.reasoning_tokens == 1
    assert (usage.outcome, usage.started_at_ms, usage.finished_at_ms) == (outcome, 1000, 2000)


@given(st.integers(0, 3), st.integers(0, 5000), st.booleans())
def test_images_are_charged_as_the_engine_read_them(images: int, added: int, spoke: bool) -> None:
    request = asked("a", prompt=10)
    for _ in range(images):
        request.images.add(content=b"x")
    meter = Meter(request, 1000)
    if spoke:
        meter.add(Piece(0, "a", 1, FINISH_REASON_UNSPECIFIED, 0, (), added if images else 0))
    usage = meter.usage(OUTCOME_ABORTED, 2000)
    expected = (10 + added, images + added) if images else (10, 0)
    assert (usage.input_tokens, usage.input_image_tokens) == (expected if spoke else (0, 0))


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), pieces), max_size=8), st.integers(200, 6000))
def test_frames_hold_every_piece_in_order_or_the_session_ends(steps, limit) -> None:  # type: ignore[no-untyped-def]
    async def scenario() -> None:
        fulls = 0

        def on_full() -> None:
            nonlocal fulls
            fulls += 1

        outbox = Outbox(limit, on_full)
        sent: list[tuple[str, int, str, int]] = []
        got: list[Delta] = []
        for request_id, step in steps:
            for piece in step:
                outbox.add(request_id, piece)
                sent.append((request_id, piece.choice, piece.text, piece.tokens))
            if step and not fulls:
                frame = await outbox.take()
                assert frame is not None
                got.extend(frame.deltas)
                # What waits is bounded, whatever was added.
                assert frame.ByteSize() <= 2 * limit + 200
        assert fulls <= 1
        seen = [(delta.request_id, delta.index, delta.text, delta.tokens) for delta in got]
        assert seen == sent[: len(seen)]
        if not fulls:
            assert seen == sent
            outbox.end(Delta(request_id="a"))
            outbox.close()
            last = await outbox.take()
            assert last is not None
            assert [delta.request_id for delta in last.deltas] == ["a"]
            assert await outbox.take() is None

    asyncio.run(scenario())
