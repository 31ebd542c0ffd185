"""What travels beside every message: service token, request id, deadline, trace context, and faults on the way back.

Both ends are here, so that what one writes is what the other reads.
"""

import asyncio
import hmac
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import grpc

from modelplane.fault.v1 import fault_pb2
from services import context, telemetry
from services.faults import DeadlineExceeded, Fault, Internal, Unauthenticated, Unavailable
from services.rpc.settings import RpcSettings

TOKEN = "modelplane-token"
REQUEST_ID = "modelplane-request-id"
FAULT = "modelplane-fault-bin"
TRACEPARENT = "traceparent"

log = telemetry.logger(__name__)


def outgoing(settings: RpcSettings) -> tuple[tuple[str, str], ...]:
    """Metadata of a call that this process makes."""
    metadata = [(TOKEN, settings.token)] if settings.token else []
    if request_id := context.request_id():
        metadata.append((REQUEST_ID, request_id))
    if traceparent := telemetry.traceparent():
        metadata.append((TRACEPARENT, traceparent))
    return tuple(metadata)


def timeout(settings: RpcSettings) -> float:
    """Seconds that a unary call may take: what is left of the caller's deadline, or the default."""
    remaining = context.remaining_s()
    return settings.timeout_s if remaining is None else remaining


def incoming(servicer: Any, settings: RpcSettings, span_name: str) -> AbstractContextManager[None]:
    """`accepted` for a call that came over gRPC."""
    metadata = {key: value for key, value in servicer.invocation_metadata() or () if isinstance(value, str)}
    return accepted(metadata, servicer.time_remaining(), settings, span_name)


@contextmanager
def accepted(
    metadata: Mapping[str, str], remaining_s: float | None, settings: RpcSettings, span_name: str
) -> Iterator[None]:
    """Serves one call under its caller's request id, deadline and trace, in a span unless its name is empty.

    Raises Unauthenticated on a bad token.
    """
    if settings.token and not hmac.compare_digest(metadata.get(TOKEN, ""), settings.token):
        raise Unauthenticated(
            "invalid_service_token", "This port is for Modelplane's own services: set MODELPLANE_RPC_TOKEN."
        )
    with (
        context.call(metadata.get(REQUEST_ID, ""), remaining_s),
        telemetry.attach(metadata.get(TRACEPARENT)),
        telemetry.span(span_name, kind=telemetry.SERVER) if span_name else nullcontext(),
    ):
        yield


async def abort(servicer: Any, error: BaseException) -> None:
    """Ends a call over gRPC with the fault behind an error."""
    if isinstance(error, grpc.aio.BaseError):
        return  # The caller is gone, and nothing can be sent any more.
    fault = fault_behind(error)
    code = grpc.StatusCode[fault.rule.grpc_code]
    trailer = ((FAULT, fault.to_proto().SerializeToString()),)
    with suppress(grpc.aio.InternalError):
        await servicer.abort(code, fault.reason, trailer)


def fault_behind(error: BaseException, *, stopped: bool = False) -> Fault:
    """The fault that a service raised; anything else is a defect, logged and hidden.

    A cancelled call is a fault only when it is not this task that is being cancelled, or the server has `stopped`
    it: otherwise the error is raised again.
    """
    if isinstance(error, Fault):
        return error
    if isinstance(error, TimeoutError):
        return DeadlineExceeded("timeout", "The call took longer than its deadline.")
    if isinstance(error, asyncio.CancelledError):
        if cancelled() and not stopped:
            raise error
        # Something that the service waited for was cancelled. Without an answer the caller would wait for ever.
        return Unavailable("service_unavailable", "The service stopped before it had answered.")
    log.error("a service method failed", exc_info=error)
    return Internal("internal", "The server had an error while processing your request.")


def cancelled() -> bool:
    """Whether the running task is being cancelled; grpc raises the same error for its own cancelled calls."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def broken_off(error: Exception | asyncio.CancelledError) -> bool:
    """Whether a call ended because its connection or its server did, and with nothing that a service said."""
    if not isinstance(error, grpc.aio.AioRpcError) or cancelled():
        return False
    gone = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    return gone and all(key != FAULT for key, _ in error.trailing_metadata() or ())


def fault_of(error: Exception | asyncio.CancelledError, service: str) -> Fault:
    """The fault behind a failed call: the one that was raised over there, or what the transport's failure means.

    Raises the error itself when it is the caller who was cancelled.
    """
    if isinstance(error, asyncio.CancelledError) and cancelled():
        raise error
    if not isinstance(error, grpc.aio.AioRpcError):
        return closed(service)
    for key, value in error.trailing_metadata() or ():
        if key == FAULT and isinstance(value, bytes):
            return Fault.from_proto(fault_pb2.Fault.FromString(value))
    code = error.code()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded("timeout", f"The {service} service did not answer in time.")
    # Cancelled from over there: our own cancellations come as asyncio's error.
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return unreachable(service)
    log.error("a call failed in transport", service=service, code=code.name, details=error.details())
    return Internal("internal", f"The {service} service failed.")


def closed(service: str) -> Fault:
    """The connection went while a call used it."""
    return Unavailable("service_unavailable", f"The connection to the {service} service was closed.")


def unreachable(service: str) -> Fault:
    """There is no connection to be had."""
    return Unavailable("service_unavailable", f"The {service} service cannot be reached; try again shortly.")
