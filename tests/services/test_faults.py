"""The fault table, and every row of it over a real socket."""

import ast
from pathlib import Path

import grpc
import pytest

from modelplane.fault.v1 import fault_pb2
from modelplane.tokenizer.v1.tokenizer_pb2 import RenderRequest
from services import faults
from services.faults import FAULTS, QUOTE_CHARACTERS, Fault, Internal, InvalidRequest, NotFound
from tests.services.rpc.servers import probes

SERVICES = Path(faults.__file__).parent
CLASSES = {kind.__name__: kind for kind in vars(faults).values() if isinstance(kind, type) and issubclass(kind, Fault)}


def fault_of(reason: str) -> Fault:
    """A fault with everything set, of the class that a service would raise."""
    raw = Fault(reason, "What went wrong: «ü».", param="messages[0].content", retry_after_ms=1234, headers={"x-a": "b"})
    return Fault.from_proto(raw.to_proto())


@pytest.mark.parametrize("reason", FAULTS)
async def test_every_reason_is_the_same_fault_on_both_sides_of_a_socket(reason: str) -> None:
    raised = fault_of(reason)
    async with probes() as p:
        p.tokenizer.error = raised
        with pytest.raises(Fault) as caught:
            await p.remote_tokenizer.render(RenderRequest())
    received = caught.value
    assert type(received) is type(raised)
    assert vars(received) == vars(raised)
    assert received.rule is raised.rule


@pytest.mark.parametrize("reason", FAULTS)
def test_a_row_is_plausible(reason: str) -> None:
    rule = FAULTS[reason]
    assert hasattr(grpc.StatusCode, rule.grpc_code) and rule.grpc_code != "OK"
    assert 400 <= rule.status <= 599
    assert type(fault_of(reason)) is not Fault
    assert rule.code is None or rule.code.replace("_", "").isalnum()
    expected_type = {429: {"requests", "tokens", "images", "audio", "insufficient_quota"}}.get(
        rule.status, {"server_error"} if rule.status >= 500 else {"invalid_request_error"}
    )
    assert rule.type in expected_type
    # A conflict with a request that will be over soon.
    soon_over = reason == "idempotency_key_in_use"
    if (rule.status < 429 or rule.status == 499) and not soon_over:
        assert not rule.retryable, "the request stays as wrong as it is"


SURFACE = [
    # What OpenAI's API answers, by its documentation.
    ("invalid_api_key", 401, "invalid_request_error", "invalid_api_key"),
    ("model_not_found", 404, "invalid_request_error", "model_not_found"),
    ("context_length_exceeded", 400, "invalid_request_error", "context_length_exceeded"),
    ("invalid_value", 400, "invalid_request_error", "invalid_value"),
    ("unsupported_parameter", 400, "invalid_request_error", "unsupported_parameter"),
    ("rate_limit_requests", 429, "requests", "rate_limit_exceeded"),
    ("rate_limit_tokens", 429, "tokens", "rate_limit_exceeded"),
    ("insufficient_quota", 429, "insufficient_quota", "insufficient_quota"),
    ("overloaded", 503, "server_error", "overloaded"),
]


@pytest.mark.parametrize(("reason", "status", "kind", "code"), SURFACE)
def test_what_clients_know(reason: str, status: int, kind: str, code: str) -> None:
    assert FAULTS[reason][1:4] == (status, kind, code)


def test_quota_is_not_worth_a_retry_and_a_rate_limit_is() -> None:
    assert not FAULTS["insufficient_quota"].retryable
    assert FAULTS["rate_limit_requests"].retryable and FAULTS["rate_limit_tokens"].retryable


def test_an_unknown_reason_is_an_internal_error() -> None:
    """A newer process may know more reasons than this one."""
    received = Fault.from_proto(fault_pb2.Fault(reason="from_the_future", message="m"))
    assert type(received) is Internal
    assert (received.reason, received.message, received.rule) == ("from_the_future", "m", FAULTS["internal"])


def test_long_quotes_are_cut() -> None:
    fault = NotFound("model_not_found", "m" * 10_000, param="p" * 10_000)
    assert len(fault.message) == len(fault.param or "") == QUOTE_CHARACTERS
    assert fault.message.endswith("m…")
    assert InvalidRequest("invalid_json", "short").param is None


def raised_reasons() -> list[tuple[str, str, str]]:
    """(place, class, reason) of every fault that the code makes with a literal reason."""
    found = []
    for path in sorted(SERVICES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not node.args:
                continue
            reason = node.args[0]
            if node.func.id in CLASSES and isinstance(reason, ast.Constant) and isinstance(reason.value, str):
                place = f"{path.relative_to(SERVICES)}:{node.lineno}"
                found.append((place, node.func.id, reason.value))
    return found


def test_every_raised_reason_has_a_row_and_its_rows_class() -> None:
    """Else the same fault would be of one class in one process and of another over a socket."""
    made = raised_reasons()
    assert len(made) > 20
    wrong = [
        (place, kind, reason)
        for place, kind, reason in made
        if reason not in FAULTS or (kind != "Fault" and type(fault_of(reason)) is not CLASSES[kind])
    ]
    assert not wrong
