"""Logs, traces and metrics, set up once per process, so that every service tells its story in the same way.

Kept true: a log line is one JSON object; nothing that looks like a key leaves the process in one, whatever
logger or field it came by; with tracing off, a span costs less than a microsecond; what was recorded is
flushed before the process ends. Prompt text is never logged and never a span attribute: no code here can tell
it from other text, so no caller may pass it.

State of the process lives where the standard library and OpenTelemetry keep theirs: in the root logger and in
the global tracer provider.
"""

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from services import context
from services.settings import Environment, Group

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

INTERNAL = trace.SpanKind.INTERNAL
SERVER = trace.SpanKind.SERVER
CLIENT = trace.SpanKind.CLIENT

EXPOSITION_TYPE = CONTENT_TYPE_LATEST
"""Content type of `exposition()`."""

AttributeValue = str | int | float | bool | Sequence[str]


class Settings(Group, frozen=True, kw_only=True):
    """What this process says about itself, and where."""

    group: ClassVar[str] = "telemetry"

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level of Modelplane's own log lines; libraries are heard from `warning` on."""

    log_file_bytes: int = 32 * 1024 * 1024
    """Size at which the log file of `modelplane up` is rotated; three old ones are kept."""

    otlp_endpoint: str = ""
    """OTLP/gRPC collector for traces, `http://host:4317`. Empty: OTEL_EXPORTER_OTLP_ENDPOINT, and without
    that no traces. Sampling follows OpenTelemetry's own OTEL_TRACES_SAMPLER."""

    listen: str = ""
    """`host:port` of GET /metrics and /healthz of this process, without TLS. The gateway's HTTP port has them
    anyway. Default: none."""

    flush_ms: int = 3000
    """Longest time that the end of the process waits for the collector to take the last spans."""


class GenAi:
    """The attributes of OpenTelemetry's GenAI semantic conventions that Modelplane's spans carry.

    The convention has more; those that hold prompts or answers stay out.
    """

    OPERATION = gen_ai_attributes.GEN_AI_OPERATION_NAME
    """`chat`, `embeddings`, …"""
    PROVIDER = gen_ai_attributes.GEN_AI_PROVIDER_NAME
    """Always `modelplane`."""
    REQUEST_MODEL = gen_ai_attributes.GEN_AI_REQUEST_MODEL
    """What the client named; an alias stays one."""
    REQUEST_MAX_TOKENS = gen_ai_attributes.GEN_AI_REQUEST_MAX_TOKENS
    REQUEST_TEMPERATURE = gen_ai_attributes.GEN_AI_REQUEST_TEMPERATURE
    REQUEST_TOP_P = gen_ai_attributes.GEN_AI_REQUEST_TOP_P
    REQUEST_CHOICES = gen_ai_attributes.GEN_AI_REQUEST_CHOICE_COUNT
    REQUEST_STREAM = gen_ai_attributes.GEN_AI_REQUEST_STREAM
    RESPONSE_ID = gen_ai_attributes.GEN_AI_RESPONSE_ID
    RESPONSE_MODEL = gen_ai_attributes.GEN_AI_RESPONSE_MODEL
    """The model that served, resolved."""
    FINISH_REASONS = gen_ai_attributes.GEN_AI_RESPONSE_FINISH_REASONS
    TIME_TO_FIRST_CHUNK = gen_ai_attributes.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK
    """Seconds, as the convention has it."""
    INPUT_TOKENS = gen_ai_attributes.GEN_AI_USAGE_INPUT_TOKENS
    CACHED_INPUT_TOKENS = gen_ai_attributes.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS
    OUTPUT_TOKENS = gen_ai_attributes.GEN_AI_USAGE_OUTPUT_TOKENS
    REASONING_TOKENS = gen_ai_attributes.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS
    SERVICE_TIER = gen_ai_attributes.GEN_AI_OPENAI_RESPONSE_SERVICE_TIER
    """The class that was served."""


# ---------------------------------------------------------------------------------------------------- logs

# At a word's beginning a short one is enough; inside a word ("disk-…") only what is as long as a real key. A
# JSON escape before it (`\nsk-…`) ends in a letter but begins a word.
_KEY = re.compile(r"(?:(?<![A-Za-z0-9])|(?<=\\[nrtbf]))sk-[A-Za-z0-9_-]{6,}|sk-[A-Za-z0-9_-]{20,}")
_URL_PASSWORD = re.compile(r"(://[^\s:/@\"]*:)[^\s@\"]+@")
_MASKED_KEY = "sk-***"

ExcInfo = BaseException | bool | None


def redact(text: str) -> str:
    """The text with every key and every password of a URL masked."""
    if "sk-" in text:
        text = _KEY.sub(_MASKED_KEY, text)
    return _URL_PASSWORD.sub(r"\1***@", text) if "://" in text else text


class Logger:
    """Writes structured lines: `log.info("replica ready", replica_id=id, ms=ms)`.

    The event is a constant text; what varies goes into fields. `exc_info` adds a traceback.
    """

    __slots__ = ("_inner",)

    def __init__(self, inner: logging.Logger) -> None:
        self._inner = inner

    def debug(self, event: str, /, *, exc_info: ExcInfo = None, **fields: object) -> None:
        self._write(logging.DEBUG, event, exc_info, fields)

    def info(self, event: str, /, *, exc_info: ExcInfo = None, **fields: object) -> None:
        self._write(logging.INFO, event, exc_info, fields)

    def warning(self, event: str, /, *, exc_info: ExcInfo = None, **fields: object) -> None:
        self._write(logging.WARNING, event, exc_info, fields)

    def error(self, event: str, /, *, exc_info: ExcInfo = None, **fields: object) -> None:
        self._write(logging.ERROR, event, exc_info, fields)

    def at(self, time_s: float, event: str, fields: dict[str, object]) -> None:
        """As `info`, of something that happened at another time, in seconds since 1970."""
        self._write(logging.INFO, event, None, fields, time_s)

    def _write(
        self, level: int, event: str, exc_info: ExcInfo, fields: dict[str, object], time_s: float | None = None
    ) -> None:
        if not self._inner.isEnabledFor(level):
            return
        raised: Any = None
        if exc_info:
            raised = sys.exc_info() if exc_info is True else (type(exc_info), exc_info, exc_info.__traceback__)
        # Made here because `Logger.log` walks the stack for the caller's line, which no log line shows.
        record = logging.LogRecord(self._inner.name, level, "", 0, event, (), raised)
        record.fields = fields
        if time_s is not None:
            record.created, record.msecs = time_s, time_s % 1 * 1000
        self._inner.handle(record)


def logger(name: str) -> Logger:
    """The logger of a module; pass `__name__`."""
    return Logger(logging.getLogger(name))


def _plain(value: object) -> object:
    """What JSON has no word for."""
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    return str(value)


def _shown(value: object) -> object:
    """The value as far as it can be shown: it may have lone surrogates, or a __str__ that fails."""
    if isinstance(value, str):
        return value.encode("ascii", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_shown(str(key)): _shown(item) for key, item in value.items()}
    try:
        return ascii(value)
    except Exception:
        return f"<{type(value).__name__} that cannot be shown>"


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON, whichever library wrote it."""

    def __init__(self) -> None:
        super().__init__()
        self._encoder = msgspec.json.Encoder(enc_hook=_plain)
        # The second of the last record, and how it is written.
        self._second = (-1, "")

    def format(self, record: logging.LogRecord) -> str:
        second, stamp = self._second
        if second != int(record.created):
            second = int(record.created)
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = (second, stamp)
        line: dict[str, object] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if request_id := context.request_id():
            line["request_id"] = request_id
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line["trace_id"] = trace.format_trace_id(span.trace_id)
        if fields := getattr(record, "fields", None):
            line["fields"] = fields
        if record.exc_info and record.exc_info[0] is not None:
            line["traceback"] = self.formatException(record.exc_info)
        return redact(self._encode(line))

    def _encode(self, line: dict[str, object]) -> str:
        try:
            return self._encoder.encode(line).decode()
        except Exception:
            # A value that cannot be shown must not cost the line.
            return self._encoder.encode({key: _shown(value) for key, value in line.items()}).decode()


class LogFile(RotatingFileHandler):
    """Rotates by what it counts, and writes a line in one call of the system: every request has one.

    The standard handler looks at the file at every line, formats it twice for that, and writes in three layers.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        super().__init__(path, maxBytes=max_bytes, backupCount=3, encoding="utf-8")
        self._bytes = path.stat().st_size

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
            if self._bytes >= self.maxBytes:
                self.doRollover()
                self._bytes = 0
            self._bytes += len(line)
            assert self.stream is not None
            os.write(self.stream.fileno(), line)
        except Exception:
            self.handleError(record)


# Libraries that would otherwise print in formats of their own, and the level from which they are heard.
_LIBRARIES: Mapping[str, int] = {
    "uvicorn": logging.WARNING,
    "uvicorn.error": logging.WARNING,
    "uvicorn.access": logging.CRITICAL,
    "vllm": logging.WARNING,
    "ray": logging.WARNING,
    "grpc": logging.WARNING,
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "asyncio": logging.WARNING,
    "alembic": logging.WARNING,
    "psycopg": logging.WARNING,
    "opentelemetry": logging.WARNING,
}


@contextmanager
def _logging(settings: Settings, log_file: Path | None) -> Iterator[None]:
    root = logging.getLogger()
    if any(isinstance(handler.formatter, JsonFormatter) for handler in root.handlers):
        yield
        return
    handler: logging.Handler
    if log_file is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        handler = LogFile(log_file, settings.log_file_bytes)
    handler.setFormatter(JsonFormatter())
    ours = logging.getLogger("services")
    levels = (root.level, ours.level)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    ours.setLevel(settings.log_level.upper())
    for name, level in _LIBRARIES.items():
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(level)
    logging.captureWarnings(True)
    # Facts about the process that no line shows, looked up for every record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        root.setLevel(levels[0])
        ours.setLevel(levels[1])
        handler.close()


# -------------------------------------------------------------------------------------------------- traces


class _Provider(trace.TracerProvider):
    """OpenTelemetry's global provider, which a process can set only once: a switch in front of the SDK."""

    def __init__(self) -> None:
        self.sdk: trace.TracerProvider | None = None
        self.tracer: trace.Tracer = trace.NoOpTracer()

    def switch(self, sdk: trace.TracerProvider | None) -> None:
        self.sdk = sdk
        self.tracer = sdk.get_tracer("modelplane") if sdk else trace.NoOpTracer()

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        """For instrumentation that is not ours."""
        return self.sdk.get_tracer(*args, **kwargs) if self.sdk else trace.NoOpTracer()


class _NoSpan:
    """Stands for a span when tracing is off."""

    __slots__ = ()

    def __enter__(self) -> trace.Span:
        return trace.INVALID_SPAN

    def __exit__(self, *_: object) -> None:
        return None


_NO_SPAN = _NoSpan()
# As OpenTelemetry's own, there is one; asking OpenTelemetry for it at every span would cost more than the span.
_PROVIDER = _Provider()


def tracer() -> trace.Tracer:
    """For spans that do not fit in a `with` block. Ask each time: tracing is set up after import."""
    return _PROVIDER.tracer


class _Span:
    """A span of a `with` block, current inside it."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def __enter__(self) -> trace.Span:
        self._token = otel_context.attach(trace.set_span_in_context(self._span))
        return self._span

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        otel_context.detach(self._token)
        if kind is not None:
            # Only the class: messages may quote what a client sent.
            self._span.set_attribute("error.type", kind.__qualname__)
            if issubclass(kind, Exception):
                self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()


def span(
    name: str, attributes: Mapping[str, AttributeValue] | None = None, kind: trace.SpanKind = INTERNAL
) -> AbstractContextManager[trace.Span]:
    """A span around a block, child of the current one; nearly free when tracing is off.

    An exception that leaves the block marks the span failed with the exception's class, never its message.
    """
    if _PROVIDER.sdk is None:
        return _NO_SPAN
    return _Span(_PROVIDER.tracer.start_span(name, kind=kind, attributes=attributes))


def traceparent() -> str | None:
    """The current trace as a W3C `traceparent` header, to send along with a call; None outside any."""
    current = trace.get_current_span().get_span_context()
    if not current.is_valid:
        return None
    trace_id, span_id = trace.format_trace_id(current.trace_id), trace.format_span_id(current.span_id)
    return f"00-{trace_id}-{span_id}-{current.trace_flags:02x}"


_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)


def attach(traceparent: str | None) -> AbstractContextManager[None]:
    """Continues the trace that a caller sent, within a `with` block; None or a bad one is ignored."""
    if traceparent is None:
        return nullcontext()
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
        return nullcontext()
    remote = trace.SpanContext(
        trace_id=int(match[2], 16),
        span_id=int(match[3], 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(int(match[4], 16)),
    )
    return _attached(remote) if remote.is_valid else nullcontext()


@contextmanager
def _attached(remote: trace.SpanContext) -> Iterator[None]:
    token = otel_context.attach(trace.set_span_in_context(trace.NonRecordingSpan(remote)))
    try:
        yield
    finally:
        otel_context.detach(token)


@contextmanager
def _tracing(settings: Settings, service_names: Sequence[str], exporter: "SpanExporter | None") -> Iterator[None]:
    if trace.get_tracer_provider() is not _PROVIDER:
        trace.set_tracer_provider(_PROVIDER)
    # OTEL_… variables are OpenTelemetry's own, read by its SDK; this one decides whether to start it at all.
    endpoint = settings.otlp_endpoint or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    if exporter is None and not endpoint:
        yield
        return
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    name = f"modelplane-{service_names[0]}" if len(service_names) == 1 else "modelplane"
    resource = Resource.create({"service.name": name, "modelplane.services": list(service_names)})
    sdk = TracerProvider(resource=resource, shutdown_on_exit=False)
    if exporter is not None:
        sdk.add_span_processor(SimpleSpanProcessor(exporter))
    else:
        # Its import takes a third of a second and brings grpc with it: only for those who trace.
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter(endpoint=endpoint)
        sdk.add_span_processor(BatchSpanProcessor(exporter))
    before = _PROVIDER.sdk
    _PROVIDER.switch(sdk)
    # Shutting down sends what is left, with retries of many seconds when the collector is away; closing the
    # exporter under it ends them.
    hurry = threading.Timer(settings.flush_ms / 1000, exporter.shutdown)
    try:
        yield
    finally:
        _PROVIDER.switch(before)
        hurry.start()
        sdk.shutdown()
        hurry.cancel()


# ------------------------------------------------------------------------------------------------- metrics


def exposition() -> bytes:
    """Every metric of this process in Prometheus's text format."""
    return generate_latest()


# --------------------------------------------------------------------------------------------------- setup


@contextmanager
def configured(
    environment: Environment,
    service_names: Sequence[str],
    *,
    home: Path,
    to_file: bool = False,
    exporter: "SpanExporter | None" = None,
) -> Iterator[None]:
    """Logs and traces of this process, for the length of a `with` block; leaving it flushes and closes them.

    Lines go to standard error, or to `home`/logs/modelplane.jsonl when a person's terminal shows progress
    instead. `exporter` takes every span as it ends, in place of a collector. Blocks nest: the outer one's log
    handler stays. Raises SettingsError.
    """
    settings = environment.group(Settings)
    log_file = home / "logs" / "modelplane.jsonl" if to_file else None
    with _logging(settings, log_file), _tracing(settings, service_names, exporter):
        yield
