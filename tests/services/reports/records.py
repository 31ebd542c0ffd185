"""Random usage over a few days, and what it adds up to, counted plainly."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from hypothesis import strategies as st

from modelplane.usage.v1.usage_pb2 import OUTCOME_COMPLETED, Attribution, ToolUsage, Usage

MINUTE_S: Final = 60
HOUR_S: Final = 3600
DAY_S: Final = 86_400
# 2026-11-01 00:00 UTC.
NOVEMBER_S: Final = 1_793_491_200
ORGANIZATIONS: Final = ("org-1", "org-2")
PRICES: Final[Mapping[str, Mapping[str, Any]]] = {
    "chat": {
        "input": "2.50",
        "cached_input": "1.25",
        "output": "10",
        "images": [{"price": "0.04"}],
        "audio_minute": "0.006",
        "characters": "15",
        "storage_gib_day": "0.10",
        "tools": {"web_search": "0.01", "file_search": "0.0025", "code_interpreter": "0.03"},
    },
    "free": {"free": True},
}
OPERATIONS: Final = (
    # Half of all, so that there is something to add up.
    *["chat.completions"] * 8,
    "completions",
    "responses",
    "embeddings",
    "moderations",
    "images.generations",
    "images.edits",
    "audio.speech",
    "audio.transcriptions",
    "audio.translations",
    "vector_stores",
)
# Few hours, and near the ends of minutes, hours and days: there sums go wrong.
SECONDS: Final = st.builds(
    lambda hour, minute, beside: NOVEMBER_S + max(0, hour * HOUR_S + minute * MINUTE_S + beside),
    st.sampled_from((0, 1, 2, 23, 24, 25, 48)),
    st.sampled_from((0, 1, 59)),
    st.sampled_from((-1, 0, 1)),
)


@st.composite
def _usages(draw: st.DrawFn) -> Usage:
    finished_at_ms = draw(SECONDS) * 1000 + draw(st.sampled_from((0, 1, 999)))
    operation = draw(st.sampled_from(OPERATIONS))
    count = st.integers(0, 1000)
    usage = Usage(
        attribution=Attribution(
            organization_id=draw(st.sampled_from(ORGANIZATIONS)),
            project_id=draw(st.sampled_from(("proj_1", "proj_2"))),
            key_id=draw(st.sampled_from(("key_1", "key_2"))),
            user_id=draw(st.sampled_from(("", "user-1"))),
        ),
        model=draw(st.sampled_from(tuple(PRICES))),
        service_tier=draw(st.sampled_from(("default", "flex"))),
        batch=draw(st.booleans()),
        operation=operation,
        outcome=OUTCOME_COMPLETED,
        cached_input_tokens=draw(count),
        output_tokens=draw(count),
        started_at_ms=finished_at_ms - 500,
        finished_at_ms=finished_at_ms,
        tools=[
            ToolUsage(tool=tool, calls=draw(st.integers(1, 3)))
            for tool in draw(st.sets(st.sampled_from(("web_search", "file_search", "code_interpreter"))))
        ],
    )
    usage.input_tokens = usage.cached_input_tokens + draw(count)
    if operation.startswith("images."):
        usage.images, usage.image_size = draw(count), draw(st.sampled_from(("256x256", "1024x1024")))
    elif operation == "audio.speech":
        usage.characters = draw(count)
    elif operation.startswith("audio."):
        usage.audio_ms = draw(count)
    elif operation == "vector_stores":
        usage.stored_byte_seconds = draw(count) * 2**40
    return usage


def usages() -> st.SearchStrategy[list[Usage]]:
    """Records with ids of their own."""

    def numbered(found: list[Usage]) -> list[Usage]:
        for number, usage in enumerate(found):
            usage.request_id = f"req_{number:04}"
        return found

    return st.lists(_usages(), min_size=5, max_size=30).map(numbered)


def buckets(since_s: int, until_s: int, bucket_s: int) -> Iterator[tuple[int, int]]:
    """Those of a period."""
    while since_s < until_s:
        end_s = min(since_s - since_s % bucket_s + bucket_s, until_s)
        yield since_s, end_s
        since_s = end_s


def add_up(
    rows: Iterable[tuple[Mapping[str, Any], Mapping[str, int]]], groups: Sequence[str]
) -> dict[tuple[Any, ...], dict[str, int]]:
    """The sums of the second parts of the rows by what the first parts say of the groups."""
    sums: defaultdict[tuple[Any, ...], defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for who, counts in rows:
        group = sums[tuple(who[name] for name in groups)]
        for name, count in counts.items():
            group[name] += count
    return {group: {name: count for name, count in counts.items() if count} for group, counts in sums.items()}
