"""The ASGI application: finds the endpoint, and sees to what every call gets whatever happens to it.

That is a request id, a span, an answer in OpenAI's form also when nothing fits or something breaks, a metric and
a log line. Paths are looked up in a table, in one step for those without parameters.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from opentelemetry.trace import Span

from services import context, telemetry
from services.faults import Fault, Internal, InvalidRequest, NotFound
from services.gateway import metrics
from services.gateway.access import Access
from services.gateway.access_log import AccessLog
from services.gateway.calls import Call, Receive, Scope, Send

Endpoint = Callable[[Call], Awaitable[None]]


class Route(NamedTuple):
    """An endpoint, the name that metrics and logs know it by, and the scope that its callers need.

    Without a scope it is open to everybody; without an operation it is neither counted nor logged.
    """

    endpoint: Endpoint
    operation: str = ""
    scope: str = ""


Methods = Mapping[str, Route]
Routes = Mapping[str, Methods]

log = telemetry.logger(__name__)


class Application:
    """Serves a table of path -> method -> route. `{name}` in a path is one segment, `{model}` all the rest."""

    def __init__(self, routes: Routes, access: Access) -> None:
        self.routes = routes
        self._access = access
        self.access_log = AccessLog()
        self._exact = {path: methods for path, methods in routes.items() if "{" not in path}
        self._patterns = [(_pattern(path), methods) for path, methods in routes.items() if "{" in path]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send)
        traceparent = call.headers.get(b"traceparent")
        with (
            context.call(call.request_id),
            telemetry.attach(traceparent.decode("latin-1") if traceparent else None),
            telemetry.span(f"{call.method} {call.path}", kind=telemetry.SERVER) as span,
        ):
            try:
                route = self._find(call)
                call.operation = route.operation
                if route.scope:
                    call.principal = await self._access.principal(call, route.scope)
                await route.endpoint(call)
            except Fault as fault:
                await call.refuse(fault)
            except Exception as error:
                log.error("an endpoint failed", path=call.path, exc_info=error)
                if call.status:
                    raise
                await call.refuse(Internal("internal", "The server had an error while processing your request."))
            finally:
                if call.operation:
                    _report(call, self.access_log)
                    if span.is_recording():
                        _describe(call, span)

    def _find(self, call: Call) -> Route:
        methods = self._exact.get(call.path)
        if methods is None:
            for pattern, candidate in self._patterns:
                if match := pattern.fullmatch(call.path):
                    methods, call.parameters = candidate, match.groupdict()
                    break
            else:
                raise NotFound("unknown_url", f"Invalid URL ({call.method} {call.path})")
        route = methods.get("GET" if call.method == "HEAD" else call.method)
        if route is None:
            raise InvalidRequest(
                "method_not_allowed",
                f"Not allowed to {call.method} on {call.path}.",
                headers={"allow": ", ".join(methods)},
            )
        return route


def _pattern(path: str) -> re.Pattern[str]:
    # An id has no slash; the name of a model, at the end of its path, may have some.
    rest = re.sub(r"\{(model)\}$", r"(?P<\1>.+)", path)
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", rest))


def _report(call: Call, access_log: AccessLog) -> None:
    run, principal, duration_s = call.run, call.principal, call.elapsed_s
    model = run.model if run else ""
    status = call.fault.rule.status if call.fault else call.status
    metrics.answered(call.operation, model, status, duration_s)
    fields: dict[str, object] = {"operation": call.operation, "status": status, "ms": round(duration_s * 1000, 1)}
    if principal is not None:
        fields |= {
            "organization": principal.organization_id,
            "project": principal.project_id,
            "key": principal.key_id,
        }
    if call.fault is not None:
        fields["reason"] = call.fault.reason
    if run is not None:
        fields["model"] = model
        if run.usage is not None:
            fields |= {"input_tokens": run.usage.input_tokens, "output_tokens": run.usage.output_tokens}
        if run.first_delta_at:
            first_s = run.first_delta_at - call.started_at
            metrics.FIRST_TOKEN.observe(model, first_s)
            fields["first_token_ms"] = round(first_s * 1000, 1)
    access_log.add(fields)


def _describe(call: Call, span: Span) -> None:
    span.set_attribute("http.response.status_code", call.status)
    span.set_attribute("modelplane.request_id", call.request_id)
    if call.fault is not None:
        span.set_attribute("error.type", call.fault.reason)
    run = call.run
    if run is None:
        return
    names = telemetry.GenAi
    span.update_name(f"chat {run.work.model}")
    span.set_attribute(names.OPERATION, "chat")
    span.set_attribute(names.PROVIDER, "modelplane")
    span.set_attribute(names.REQUEST_MODEL, run.work.model)
    span.set_attribute(names.RESPONSE_MODEL, run.model)
    span.set_attribute(names.REQUEST_STREAM, run.work.stream)
    span.set_attribute(names.REQUEST_CHOICES, run.work.n)
    if run.work.max_output_tokens is not None:
        span.set_attribute(names.REQUEST_MAX_TOKENS, run.work.max_output_tokens)
    if run.usage is not None:
        span.set_attribute(names.INPUT_TOKENS, run.usage.input_tokens)
        span.set_attribute(names.CACHED_INPUT_TOKENS, run.usage.cached_input_tokens)
        span.set_attribute(names.OUTPUT_TOKENS, run.usage.output_tokens)
    if run.first_delta_at:
        span.set_attribute(names.TIME_TO_FIRST_CHUNK, run.first_delta_at - call.started_at)
