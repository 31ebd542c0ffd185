"""What each of OpenAI's usage endpoints is about: which requests it counts, and what of them. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from modelplane.reports.v1 import reports_pb2 as pb
from modelplane.reports.v1.reports_pb2 import Endpoint

# The operations of images, by what OpenAI calls the source of an image.
SOURCES: Final[Mapping[str, str]] = {
    "image.generation": "images.generations",
    "image.edit": "images.edits",
    "image.variation": "images.variations",
}
_WHO: Final = ("project_id", "user_id", "api_key_id", "model")


class Counted(NamedTuple):
    """A row of the table: fields of UsageResult, and by which of them they may be grouped."""

    measures: Sequence[str]
    groups: Sequence[str]
    operations: Sequence[str] = ()
    """Of the requests that count; none for any."""

    tool: str = ""
    """Not requests but calls of this tool are counted."""


ENDPOINTS: Final[Mapping[Endpoint, Counted]] = {
    pb.ENDPOINT_COMPLETIONS: Counted(
        measures=(
            "requests",
            "input_tokens",
            "cached_input_tokens",
            "cache_write_tokens",
            "input_audio_tokens",
            "input_image_tokens",
            "output_tokens",
            "output_audio_tokens",
            "output_image_tokens",
        ),
        groups=(*_WHO, "batch", "service_tier"),
        operations=("chat.completions", "completions", "responses"),
    ),
    pb.ENDPOINT_EMBEDDINGS: Counted(("requests", "input_tokens"), _WHO, ("embeddings",)),
    pb.ENDPOINT_MODERATIONS: Counted(("requests", "input_tokens"), _WHO, ("moderations",)),
    pb.ENDPOINT_IMAGES: Counted(("requests", "images"), (*_WHO, "size", "source"), tuple(SOURCES.values())),
    pb.ENDPOINT_AUDIO_SPEECHES: Counted(("requests", "characters"), _WHO, ("audio.speech",)),
    pb.ENDPOINT_AUDIO_TRANSCRIPTIONS: Counted(
        ("requests", "audio_ms"), _WHO, ("audio.transcriptions", "audio.translations")
    ),
    pb.ENDPOINT_VECTOR_STORES: Counted(("stored_byte_seconds",), ("project_id",)),
    pb.ENDPOINT_CODE_INTERPRETER_SESSIONS: Counted(("tool_calls",), ("project_id",), tool="code_interpreter"),
    pb.ENDPOINT_FILE_SEARCH_CALLS: Counted(
        ("requests", "tool_calls"), ("project_id", "user_id", "api_key_id"), tool="file_search"
    ),
    pb.ENDPOINT_WEB_SEARCH_CALLS: Counted(("requests", "tool_calls"), _WHO, tool="web_search"),
}
