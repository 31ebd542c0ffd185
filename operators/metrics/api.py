"""The API external.metrics.k8s.io/v1beta1 as HTTP: its discovery documents, and one figure at a time.

Figures are those of one namespace, and read-only. The group of pods is a label like any other: an autoscaler names the
metric `modelplane_queued_requests` with the selector `group=router,model=m`. What is withheld is a 503, which makes an
autoscaler keep its scale and say why.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from prometheus_client import Counter

from operators.metrics.door import Door
from operators.metrics.figures import FIGURES, Board, UnknownFigureError, WithheldError, selected

ANSWERS = Counter(
    "modelplane_external_metrics_answers",
    "Figures that autoscalers asked for, by what they got: given, withheld, unknown",
    ["metric", "outcome"],
)

GROUP: Final = "external.metrics.k8s.io"
VERSION: Final = f"{GROUP}/v1beta1"
REASONS: Final = {400: "BadRequest", 403: "Forbidden", 404: "NotFound", 405: "MethodNotAllowed"}
REASONS_LATER: Final = {500: "InternalError", 503: "ServiceUnavailable"}
_SERVED: Final[Mapping[str, Any]] = {"groupVersion": VERSION, "version": "v1beta1"}
_KIND: Final[Mapping[str, Any]] = {
    "singularName": "",
    "namespaced": True,
    "kind": "ExternalMetricValueList",
    "verbs": ["get"],
}
# What the API server wants to know of an API that it passes requests on to. It complains in its log, again and again,
# where there is no OpenAPI at all.
DOCUMENTS: Final[Mapping[str, Any]] = {
    f"/apis/{GROUP}": {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": GROUP,
        "versions": [_SERVED],
        "preferredVersion": _SERVED,
    },
    f"/apis/{VERSION}": {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": VERSION,
        "resources": [{"name": name, **_KIND} for name in FIGURES],
    },
    "/openapi/v2": {"swagger": "2.0", "info": {"title": GROUP, "version": "v1beta1"}, "paths": {}},
    "/openapi/v3": {"paths": {}},
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(board: Board, door: Door, namespace: str) -> web.Application:
    """The HTTPS side. What it reads of the board is of now."""

    async def read(request: web.Request) -> web.Response:
        return answer(board, namespace, request)

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        certificate = request.transport.get_extra_info("peercert") if request.transport else None
        if not door.admits(certificate):
            return failure(403, "only the cluster's API server may ask here")
        try:
            return await handler(request)
        except web.HTTPException as error:
            return failure(error.status, error.reason)

    app = web.Application(middlewares=[guard], client_max_size=0)
    for path in DOCUMENTS:
        app.router.add_get(path, describe)
    app.router.add_get(f"/apis/{VERSION}/namespaces/{{namespace}}/{{metric}}", read)
    return app


async def describe(request: web.Request) -> web.Response:
    return web.json_response(DOCUMENTS[request.path])


def answer(board: Board, namespace: str, request: web.Request) -> web.Response:
    """One figure, or why there is none."""
    if request.match_info["namespace"] != namespace:
        return failure(404, f"only the figures of namespace {namespace} are here")
    name = request.match_info["metric"]
    try:
        labels = selected(request.query.get("labelSelector", ""))
        group = labels.pop("group", "")
        if not group:
            raise ValueError("the selector must name a group of pods: group=gateway")
        now_s = time.monotonic()
        reading = board.read(group, name, labels, now_s)
    except ValueError as error:
        return failure(400, str(error))
    except UnknownFigureError as error:
        if name in FIGURES:
            ANSWERS.labels(name, "unknown").inc()
        return failure(404, str(error))
    except WithheldError as error:
        ANSWERS.labels(name, "withheld").inc()
        return failure(503, str(error))
    ANSWERS.labels(name, "given").inc()
    seen = datetime.fromtimestamp(time.time() - (now_s - reading.at_s), UTC)
    item = {
        "metricName": name,
        "metricLabels": {"group": group, **labels},
        "timestamp": seen.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "value": quantity(reading.value),
    }
    return web.json_response(
        {"kind": "ExternalMetricValueList", "apiVersion": VERSION, "metadata": {}, "items": [item]}
    )


def failure(status: int, message: str) -> web.Response:
    """A Status of Kubernetes, whose message ends up in the autoscaler's events."""
    document: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    reason = (REASONS | REASONS_LATER).get(status, HTTPStatus(status).phrase.replace(" ", ""))
    return web.json_response({**document, "message": message, "reason": reason, "code": status}, status=status)


def quantity(value: float) -> str:
    """A number as Kubernetes writes quantities, to a thousandth."""
    thousandths = round(value * 1000)
    return f"{thousandths}m" if thousandths % 1000 else str(thousandths // 1000)
