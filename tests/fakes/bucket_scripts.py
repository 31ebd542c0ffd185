"""Random stories of takes, extensions and settlements over a few buckets, and what a `Buckets` says to them.

Any implementation can be played the same script as the one in memory and must tell the same story; `wait` is how
its time passes.
"""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeVar

from hypothesis import strategies as st

from services.ratelimit.buckets import BucketKey, Buckets, Correction, Level, Need, Short
from services.ratelimit.gcra import Claim, Rate

MILLISECOND_NS: Final = 1_000_000
# Requests and tokens, of an organisation and of its project. Whole milliseconds: a clock may be no finer.
RATES: Final = {
    BucketKey("organization", "org-1", "small", 1): Rate(6, 40 * MILLISECOND_NS),
    BucketKey("organization", "org-1", "small", 3): Rate(60, 4 * MILLISECOND_NS),
    BucketKey("project", "proj_1", "small", 1, "org-1"): Rate(4, 60 * MILLISECOND_NS),
    BucketKey("project", "proj_1", "small", 3, "org-1"): Rate(40, 6 * MILLISECOND_NS),
}
KEYS: Final = tuple(RATES)

AnyT = TypeVar("AnyT")


class Step(NamedTuple):
    """Wait, then do one thing."""

    wait_ms: int
    kind: Literal["take", "extend", "settle"]
    units: tuple[int, ...]
    """To take of each key; 0 leaves the key out."""

    claim: int
    """Which of the open takes to settle."""

    percent: int
    """How much of it was used."""


class Seen(NamedTuple):
    """What a step showed: how it was answered, and the levels of all keys before and after it."""

    at_ms: int
    step: Step
    answer: Literal["taken", "short", "done", "nothing"]
    short: tuple[BucketKey, int | None] | None
    before: tuple[Level, ...]
    after: tuple[Level, ...]
    settled: int | None
    """The index in the story of the take that was settled."""


def scripts(kinds: Sequence[str] = ("take", "extend", "settle"), most_percent: int = 150) -> st.SearchStrategy[Any]:
    """Lists of steps. With only `take` and `settle`, and at most 100 percent, no limit may ever be passed."""
    step = st.builds(
        Step,
        wait_ms=st.integers(0, 80),
        kind=st.sampled_from(kinds),
        units=st.tuples(st.integers(0, 3), st.integers(0, 45), st.integers(0, 3), st.integers(0, 45)),
        claim=st.integers(0, 5),
        percent=st.integers(0, most_percent),
    )
    return st.lists(step, max_size=25)


async def levels(buckets: Buckets) -> tuple[Level, ...]:
    """How full every bucket is: whoever asks for nothing is told, whether there is a debt or not."""
    return (await buckets.take([Need(key, rate, 0) for key, rate in RATES.items()])).levels


async def play(buckets: Buckets, script: Sequence[Step], wait: Callable[[int], Awaitable[None]]) -> list[Seen]:
    """The story of a script; `wait` takes milliseconds."""
    story: list[Seen] = []
    open_takes: list[tuple[int, list[Need], tuple[Claim, ...]]] = []
    now_ms = 0
    for step in script:
        await wait(step.wait_ms)
        now_ms += step.wait_ms
        before = await levels(buckets)
        needs = [Need(key, RATES[key], units) for key, units in zip(KEYS, step.units, strict=True) if units]
        answer: Literal["taken", "short", "done", "nothing"] = "nothing"
        short, settled = None, None
        if step.kind == "settle" and open_takes:
            settled, taken, claims = open_takes.pop(step.claim % len(open_takes))
            await buckets.settle(
                [
                    Correction(need.key, need.rate, claim, need.units * step.percent // 100)
                    for need, claim in zip(taken, claims, strict=True)
                ]
            )
            answer = "done"
        elif step.kind == "extend" and needs:
            open_takes.append((len(story), needs, await buckets.extend(needs)))
            answer = "done"
        elif step.kind == "take" and needs:
            decision = await buckets.take(needs)
            if isinstance(decision, Short):
                answer, short = "short", (needs[decision.index].key, decision.wait_ns)
            else:
                answer = "taken"
                open_takes.append((len(story), needs, decision.claims))
        story.append(Seen(now_ms, step, answer, short, before, await levels(buckets), settled))
    return story


def finish(coroutine: Coroutine[Any, Any, AnyT]) -> AnyT:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: AnyT = stop.value
        return result
    coroutine.close()
    raise AssertionError("it waited for something")
