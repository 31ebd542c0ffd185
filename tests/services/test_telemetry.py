"""What leaves a process as log lines, spans and metrics."""

import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import Counter

from services import context, telemetry
from services.settings import Environment, SettingsError
from services.telemetry import GenAi

log = telemetry.logger("services.test_telemetry")
KEY = "sk-proj-aB3dEf6hIj9kLm2nOp5qRs8tUv"
LINES = Counter("modelplane_test_lines", "Lines, for a test.")


@contextmanager
def capture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **variables: str) -> Iterator[list[dict[str, Any]]]:
    """The log lines written in the block, parsed."""
    stream, lines = io.StringIO(), list[dict[str, Any]]()
    monkeypatch.setattr(sys, "stderr", stream)
    with telemetry.configured(Environment(variables), ["billing"], home=tmp_path):
        yield lines
    lines.extend(json.loads(line) for line in stream.getvalue().splitlines())


def test_a_line_has_event_fields_and_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with capture(monkeypatch, tmp_path) as lines, context.call("req_1"):
        log.info("replica ready", replica_id="r1", ms=12.5, path=Path("/x"), error=ValueError("no"))
        log.debug("not shown")
    (line,) = lines
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "services.test_telemetry",
        "event": "replica ready",
        "request_id": "req_1",
        "fields": {"replica_id": "r1", "ms": 12.5, "path": "/x", "error": "ValueError: no"},
    }


def test_the_level_is_a_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with capture(monkeypatch, tmp_path, MODELPLANE_TELEMETRY_LOG_LEVEL="debug") as lines:
        log.debug("shown")
    assert [line["event"] for line in lines] == ["shown"]
    with pytest.raises(SettingsError), capture(monkeypatch, tmp_path, MODELPLANE_TELEMETRY_LOG_LEVEL="loud"):
        pass


def test_keys_and_passwords_are_masked_everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with capture(monkeypatch, tmp_path) as lines:
        log.info(f"event with {KEY}", key=KEY, nested={"a": [f"Bearer {KEY}"]}, joined=f"key{KEY}")
        log.warning("two lines", text=f"first\n{KEY}", url=f"https://u:{KEY}@host/", raw=KEY.encode())
        logging.getLogger("thirdparty").warning("token %s", KEY)
        log.error("database", url="postgresql://modelplane:hunter2@host:5432/db")
        try:
            raise ValueError(f"bad {KEY}")
        except ValueError as error:
            log.error("failed", exc_info=error)
            log.error("failed", exc_info=True)
    text = json.dumps(lines)
    assert KEY not in text and "aB3dEf6hIj9kLm2nOp5qRs8tUv" not in text and "hunter2" not in text
    assert "postgresql://modelplane:***@host:5432/db" in text
    assert all("ValueError: bad sk-***" in line["traceback"] for line in lines[-2:])


def test_ordinary_words_are_left_alone() -> None:
    assert telemetry.redact("disk-full risk-free task-12") == "disk-full risk-free task-12"


def test_a_value_that_cannot_be_shown_does_not_cost_the_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no text")

        __repr__ = __str__

    with capture(monkeypatch, tmp_path) as lines:
        log.info("surrogate", text="\ud800")
        log.info("broken", value=Broken())
    assert [line["event"] for line in lines] == ["surrogate", "broken"]
    assert lines[0]["fields"] == {"text": "\\ud800"}
    assert lines[1]["fields"] == {"value": "<Broken that cannot be shown>"}


def test_libraries_are_routed_and_quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = logging.getLogger("vllm")
    library.addHandler(logging.StreamHandler(io.StringIO()))
    with capture(monkeypatch, tmp_path) as lines:
        logging.getLogger("vllm.engine").info("chatter")
        logging.getLogger("vllm.engine").warning("real %s", "trouble")
        logging.getLogger("uvicorn.access").info("GET /")
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            logging.captureWarnings(True)
            warnings.warn("old way", DeprecationWarning, stacklevel=1)
    assert [line["logger"] for line in lines] == ["vllm.engine", "py.warnings"]
    assert lines[0]["event"] == "real trouble"


def test_to_file(tmp_path: Path) -> None:
    variables = {"MODELPLANE_TELEMETRY_LOG_FILE_BYTES": "2000"}
    with telemetry.configured(Environment(variables), ["gateway"], home=tmp_path, to_file=True):
        for number in range(100):
            log.info("line", number=number)
    folder = tmp_path / "logs"
    assert sorted(path.name for path in folder.iterdir()) == [
        "modelplane.jsonl",
        *(f"modelplane.jsonl.{number}" for number in (1, 2, 3)),
    ]
    last = (folder / "modelplane.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["fields"] == {"number": 99}


def test_nested_blocks_write_each_line_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (
        capture(monkeypatch, tmp_path) as lines,
        telemetry.configured(Environment({}), ["auth"], home=tmp_path),
    ):
        log.info("once")
    assert len(lines) == 1


def test_spans_carry_attributes_and_the_callers_trace(tmp_path: Path) -> None:
    exporter = InMemorySpanExporter()
    caller = f"00-{'a' * 32}-{'b' * 16}-01"
    with telemetry.configured(Environment({}), ["gateway"], home=tmp_path, exporter=exporter):
        with (
            telemetry.attach(caller),
            telemetry.span("chat x", {GenAi.REQUEST_MODEL: "x"}, telemetry.SERVER) as outer,
        ):
            sent = telemetry.traceparent()
            with telemetry.span("inner"):
                pass
            outer.set_attribute(GenAi.OUTPUT_TOKENS, 7)
            telemetry.tracer().start_span("by hand").end()
        assert telemetry.traceparent() is None
    inner, by_hand, request = exporter.get_finished_spans()
    assert request.parent is not None and trace.format_span_id(request.parent.span_id) == "b" * 16
    assert sent == f"00-{'a' * 32}-{trace.format_span_id(request.context.span_id)}-01"
    assert inner.parent == by_hand.parent == request.context
    assert dict(request.attributes or {}) == {"gen_ai.request.model": "x", "gen_ai.usage.output_tokens": 7}
    assert request.resource.attributes["service.name"] == "modelplane-gateway"
    assert telemetry.span("after") is telemetry.span("the end")


def test_a_failed_span_tells_the_class_and_no_text(tmp_path: Path) -> None:
    exporter = InMemorySpanExporter()
    with telemetry.configured(Environment({}), ["gateway"], home=tmp_path, exporter=exporter):
        with pytest.raises(ValueError, match="a prompt"), telemetry.span("fails"):
            raise ValueError("a prompt")
        (span,) = exporter.get_finished_spans()
    assert dict(span.attributes or {}) == {"error.type": "ValueError"}
    assert not span.status.is_ok and span.status.description is None and not span.events


def test_log_lines_carry_the_trace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with capture(monkeypatch, tmp_path) as lines, telemetry.attach(f"00-{'a' * 32}-{'b' * 16}-01"):
        log.info("traced")
        assert telemetry.traceparent() == f"00-{'a' * 32}-{'b' * 16}-01"
    assert lines[0]["trace_id"] == "a" * 32


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nonsense",
        f"00-{'0' * 32}-{'b' * 16}-01",
        f"ff-{'a' * 32}-{'b' * 16}-01",
        "00-" + "x" * 5000,
    ],
)
def test_a_bad_traceparent_is_ignored(header: str | None) -> None:
    with telemetry.attach(header):
        assert telemetry.traceparent() is None


def test_a_collector_that_is_away_delays_the_end_only_briefly(tmp_path: Path) -> None:
    """In a process of its own: grpc's threads outlive the exporter."""
    script = f"""
import sys, time
from pathlib import Path
from services import telemetry
from services.settings import Environment
prefix = "MODELPLANE_TELEMETRY_"
variables = {{prefix + "OTLP_ENDPOINT": "http://127.0.0.1:9", prefix + "FLUSH_MS": "200"}}
with telemetry.configured(Environment(variables), ["gateway"], home=Path({str(tmp_path)!r})):
    with telemetry.span("x") as span:
        assert span.is_recording()
    started = time.monotonic()
assert time.monotonic() - started < 2, time.monotonic() - started
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_nothing_of_tracing_is_loaded_without_a_collector() -> None:
    script = """
import sys
from pathlib import Path
from services import telemetry
from services.settings import Environment
with telemetry.configured(Environment({}), ["gateway"], home=Path(".")), telemetry.span("x"):
    assert telemetry.traceparent() is None
assert not {"grpc", "opentelemetry.sdk.trace"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_exposition() -> None:
    LINES.inc(3)
    assert b"modelplane_test_lines_total 3.0" in telemetry.exposition()
    assert telemetry.EXPOSITION_TYPE.startswith("text/plain")
