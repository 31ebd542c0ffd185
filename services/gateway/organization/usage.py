"""/v1/organization/usage/…: the ten endpoints that say what was used, a bucket of time after the other.

OpenAI tells cached tokens apart by what they stand for. Here they are all counted as text: prompt tokens of audio and
images are shown as far as they may not be among the cached ones.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from modelplane.reports.v1 import reports_pb2 as pb
from modelplane.reports.v1.reports_api import ReportsService
from modelplane.reports.v1.reports_pb2 import UsageBucket, UsageResult
from services.gateway.calls import Call
from services.gateway.organization.buckets import Allowed, Width, page_object, parse
from services.gateway.requests.values import one_of

WIDTHS: Final[Mapping[str, Width]] = {
    "1m": Width(60, 60, 1440),
    "1h": Width(3600, 24, 168),
    "1d": Width(86_400, 7, 31),
}
_WHO: Final = ("project_id", "user_id", "api_key_id", "model")
_IDS: Final = ("project_ids", "user_ids", "api_key_ids", "models")
_API_SOURCE: Final = ("api_source",)

Counts = Callable[[UsageResult, float], Mapping[str, int]]
"""The counts of a result that took so many seconds."""


class Report(NamedTuple):
    """One of the endpoints. `shown` are the fields that say of whom a result is, grouped by or not."""

    endpoint: pb.Endpoint
    object: str
    allowed: Allowed
    counts: Counts
    shown: Sequence[str]


class UsageReports:
    """The endpoints. `clock` gives seconds of the epoch."""

    def __init__(self, reports: ReportsService, clock: Callable[[], float] = time.time) -> None:
        self._reports = reports
        self._clock = clock

    def endpoint(self, report: Report) -> Callable[[Call], Awaitable[None]]:
        """The endpoint of a report."""

        async def answer(call: Call) -> None:
            asked = parse(call.query, report.allowed)
            found = await self._reports.query_usage(
                pb.QueryUsageRequest(
                    organization_id=call.caller.organization_id,
                    endpoint=report.endpoint,
                    start_time=asked.start_time,
                    end_time=asked.end_time,
                    bucket_s=asked.bucket_s,
                    filters=pb.Filters(**asked.arrays, batch=asked.batch),
                    group_by=asked.group_by,
                    limit=asked.limit,
                    page=asked.page,
                )
            )
            buckets = [(bucket.start_time, bucket.end_time, self._results(report, bucket)) for bucket in found.buckets]
            await call.respond(200, page_object(buckets, found.next_page))

        return answer

    def _results(self, report: Report, bucket: UsageBucket) -> list[dict[str, Any]]:
        # A bucket that is not over yet is an average of what there was until now.
        elapsed_s = max(1.0, min(bucket.end_time, self._clock()) - bucket.start_time)
        return [
            {
                "object": f"organization.usage.{report.object}.result",
                **report.counts(result, elapsed_s),
                **{name: grouped(result, name) for name in report.shown},
            }
            for result in bucket.results
        ]


def grouped(result: Any, name: str) -> str | bool | None:
    """What a result is grouped by; None for what it is not, for nobody, and for what there is not here."""
    if name not in result.DESCRIPTOR.fields_by_name or not result.HasField(name):
        return None
    value: str | bool = getattr(result, name)
    return None if value == "" else value


def completions(result: UsageResult, _: float) -> dict[str, int]:
    """The parts of the prompt that is not cached, and those of the answer, add up to the whole."""
    uncached = max(0, result.input_tokens - result.cached_input_tokens - result.cache_write_tokens)
    audio = min(result.input_audio_tokens, uncached)
    image = min(result.input_image_tokens, uncached - audio)
    return {
        "input_tokens": result.input_tokens,
        "input_cached_tokens": result.cached_input_tokens,
        "input_cache_write_tokens": result.cache_write_tokens,
        "input_uncached_tokens": uncached,
        "output_tokens": result.output_tokens,
        "input_text_tokens": uncached - audio - image,
        "output_text_tokens": max(0, result.output_tokens - result.output_audio_tokens - result.output_image_tokens),
        "input_cached_text_tokens": result.cached_input_tokens,
        "input_audio_tokens": audio,
        "input_cached_audio_tokens": 0,
        "output_audio_tokens": result.output_audio_tokens,
        "input_image_tokens": image,
        "input_cached_image_tokens": 0,
        "output_image_tokens": result.output_image_tokens,
        "num_model_requests": result.requests,
    }


def tokens(result: UsageResult, _: float) -> dict[str, int]:
    """Of embeddings and moderations."""
    return {"input_tokens": result.input_tokens, "num_model_requests": result.requests}


def images(result: UsageResult, _: float) -> dict[str, int]:
    return {"images": result.images, "num_model_requests": result.requests}


def speeches(result: UsageResult, _: float) -> dict[str, int]:
    return {"characters": result.characters, "num_model_requests": result.requests}


def transcriptions(result: UsageResult, _: float) -> dict[str, int]:
    """Seconds to the nearest."""
    return {"seconds": (result.audio_ms + 500) // 1000, "num_model_requests": result.requests}


def stored(result: UsageResult, elapsed_s: float) -> dict[str, int]:
    """The average of the bytes."""
    return {"usage_bytes": round(result.stored_byte_seconds / elapsed_s)}


def sessions(result: UsageResult, _: float) -> dict[str, int]:
    return {"num_sessions": result.tool_calls}


def searches(result: UsageResult, _: float) -> dict[str, int]:
    return {"num_requests": result.tool_calls}


def web_searches(result: UsageResult, _: float) -> dict[str, int]:
    return {"num_model_requests": result.requests, "num_requests": result.tool_calls}


_BY_ALL: Final = Allowed(WIDTHS, _IDS, _WHO)
_BY_PROJECT: Final = Allowed(WIDTHS, ("project_ids",), ("project_id",))
_COMPLETIONS: Final = Allowed(
    WIDTHS, _IDS, (*_WHO, "batch", "service_tier"), batch=True, unsupported_groups=_API_SOURCE
)
_IMAGES: Final = Allowed(
    WIDTHS,
    (*_IDS, "sources", "sizes"),
    (*_WHO, "size", "source"),
    choices={"sources": one_of("image.generation", "image.edit", "image.variation")},
)
_FILE_SEARCHES: Final = Allowed(
    WIDTHS,
    ("project_ids", "user_ids", "api_key_ids"),
    ("project_id", "user_id", "api_key_id"),
    unsupported=("vector_store_ids",),
    unsupported_groups=("vector_store_id",),
)
_WEB_SEARCHES: Final = Allowed(
    WIDTHS,
    _IDS,
    _WHO,
    unsupported=("context_levels",),
    unsupported_groups=("context_level", *_API_SOURCE),
)

REPORTS: Final[Mapping[str, Report]] = {
    "completions": Report(
        pb.ENDPOINT_COMPLETIONS, "completions", _COMPLETIONS, completions, (*_WHO, "batch", "service_tier")
    ),
    "embeddings": Report(pb.ENDPOINT_EMBEDDINGS, "embeddings", _BY_ALL, tokens, _WHO),
    "moderations": Report(pb.ENDPOINT_MODERATIONS, "moderations", _BY_ALL, tokens, _WHO),
    "images": Report(pb.ENDPOINT_IMAGES, "images", _IMAGES, images, (*_WHO, "size", "source")),
    "audio_speeches": Report(pb.ENDPOINT_AUDIO_SPEECHES, "audio_speeches", _BY_ALL, speeches, _WHO),
    "audio_transcriptions": Report(
        pb.ENDPOINT_AUDIO_TRANSCRIPTIONS, "audio_transcriptions", _BY_ALL, transcriptions, _WHO
    ),
    "vector_stores": Report(pb.ENDPOINT_VECTOR_STORES, "vector_stores", _BY_PROJECT, stored, ("project_id",)),
    "code_interpreter_sessions": Report(
        pb.ENDPOINT_CODE_INTERPRETER_SESSIONS, "code_interpreter_sessions", _BY_PROJECT, sessions, ("project_id",)
    ),
    "file_search_calls": Report(
        pb.ENDPOINT_FILE_SEARCH_CALLS,
        "file_searches",
        _FILE_SEARCHES,
        searches,
        ("project_id", "user_id", "api_key_id", "vector_store_id"),
    ),
    "web_search_calls": Report(
        pb.ENDPOINT_WEB_SEARCH_CALLS, "web_searches", _WEB_SEARCHES, web_searches, (*_WHO, "context_level")
    ),
}
"""By the last part of their paths."""
