"""HTTP clients that hold every answer against OpenAI's specification while they read it, for the SDKs of the journeys.

A stream is checked event by event, as it arrives; what does not fit raises where the journey reads it.
"""

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, NamedTuple

import httpx2

from tests.services.gateway.schemas import EVENT_TYPES, assert_matches


class Shape(NamedTuple):
    """The schemas of an endpoint's answers: of a whole one, and of the events of a stream; "" for one whose schema is
    not what OpenAI answers."""

    path: str
    methods: str
    whole: str
    event: str = ""


AUDIT_LOG: Final = "ListAuditLogsResponse"
PROJECT: Final = r"/v1/organization/projects/[^/]+"
SHAPES: Final = (
    Shape(r"/v1/chat/completions", "POST", "CreateChatCompletionResponse", "CreateChatCompletionStreamResponse"),
    Shape(r"/v1/chat/completions", "GET", "ChatCompletionList"),
    Shape(r"/v1/chat/completions/[^/]+", "GET POST", "CreateChatCompletionResponse"),
    Shape(r"/v1/chat/completions/[^/]+", "DELETE", "ChatCompletionDeleted"),
    # Its schema knows messages of assistants only.
    Shape(r"/v1/chat/completions/[^/]+/messages", "GET", ""),
    Shape(r"/v1/completions", "POST", "CreateCompletionResponse", "CreateCompletionResponse"),
    Shape(r"/v1/models", "GET", "ListModelsResponse"),
    Shape(r"/v1/models/.+", "GET", "Model"),
    Shape(r"/v1/organization/users", "GET", "UserListResponse"),
    Shape(r"/v1/organization/users/[^/]+", "GET POST", "User"),
    Shape(r"/v1/organization/users/[^/]+", "DELETE", "UserDeleteResponse"),
    Shape(r"/v1/organization/projects/[^/]+/users", "GET", "ProjectUserListResponse"),
    Shape(r"/v1/organization/projects/[^/]+/users", "POST", "ProjectUser"),
    Shape(r"/v1/organization/projects/[^/]+/users/[^/]+", "GET POST", "ProjectUser"),
    Shape(r"/v1/organization/projects/[^/]+/users/[^/]+", "DELETE", "ProjectUserDeleteResponse"),
    Shape(r"/v1/organization/invites", "GET", "InviteListResponse"),
    Shape(r"/v1/organization/invites", "POST", "Invite"),
    Shape(r"/v1/organization/invites/[^/]+", "GET", "Invite"),
    Shape(r"/v1/organization/invites/[^/]+", "DELETE", "InviteDeleteResponse"),
    Shape(r"/v1/organization/projects", "GET", "ProjectListResponse"),
    Shape(r"/v1/organization/projects", "POST", "Project"),
    Shape(PROJECT, "GET POST", "Project"),
    Shape(rf"{PROJECT}/archive", "POST", "Project"),
    Shape(rf"{PROJECT}/model_permissions", "GET POST", "ProjectModelPermissions"),
    Shape(rf"{PROJECT}/model_permissions", "DELETE", "ProjectModelPermissionsDeleteResponse"),
    Shape(rf"{PROJECT}/rate_limits", "GET", "ProjectRateLimitListResponse"),
    Shape(rf"{PROJECT}/rate_limits/.+", "POST", "ProjectRateLimit"),
    Shape(rf"{PROJECT}/api_keys", "GET", "ProjectApiKeyListResponse"),
    Shape(rf"{PROJECT}/api_keys/[^/]+", "GET", "ProjectApiKey"),
    Shape(rf"{PROJECT}/api_keys/[^/]+", "DELETE", "ProjectApiKeyDeleteResponse"),
    Shape(rf"{PROJECT}/service_accounts", "GET", "ProjectServiceAccountListResponse"),
    Shape(rf"{PROJECT}/service_accounts", "POST", "ProjectServiceAccountCreateResponse"),
    Shape(rf"{PROJECT}/service_accounts/[^/]+", "GET POST", "ProjectServiceAccount"),
    Shape(rf"{PROJECT}/service_accounts/[^/]+", "DELETE", "ProjectServiceAccountDeleteResponse"),
    Shape(rf"{PROJECT}/service_accounts/[^/]+/api_keys", "POST", "ServiceAccountApiKeyBody"),
    Shape(rf"{PROJECT}/spend_limit", "GET POST", "ProjectSpendLimitResource"),
    Shape(rf"{PROJECT}/spend_limit", "DELETE", "ProjectSpendLimitDeletedResource"),
    Shape(rf"{PROJECT}/spend_alerts", "GET", "ProjectSpendAlertListResource"),
    Shape(rf"{PROJECT}/spend_alerts(/[^/]+)?", "GET POST", "ProjectSpendAlert"),
    Shape(rf"{PROJECT}/spend_alerts/[^/]+", "DELETE", "ProjectSpendAlertDeletedResource"),
    Shape(r"/v1/organization/spend_limit", "GET POST", "OrganizationSpendLimitResource"),
    Shape(r"/v1/organization/spend_limit", "DELETE", "OrganizationSpendLimitDeletedResource"),
    Shape(r"/v1/organization/spend_alerts", "GET", "OrganizationSpendAlertListResource"),
    Shape(r"/v1/organization/spend_alerts(/[^/]+)?", "GET POST", "OrganizationSpendAlert"),
    Shape(r"/v1/organization/spend_alerts/[^/]+", "DELETE", "OrganizationSpendAlertDeletedResource"),
    Shape(r"/v1/organization/admin_api_keys", "GET", "ApiKeyList"),
    Shape(r"/v1/organization/admin_api_keys", "POST", "AdminApiKeyCreateResponse"),
    Shape(r"/v1/organization/admin_api_keys/[^/]+", "GET", "AdminApiKey"),
    Shape(r"/v1/organization/admin_api_keys/[^/]+", "DELETE", "AdminApiKeyDeleted"),
    Shape(r"/v1/organization/(usage/[^/]+|costs)", "GET", "UsageResponse"),
    Shape(r"/v1/organization/audit_logs", "GET", AUDIT_LOG),
)


def shape_of(method: str, path: str) -> Shape:
    """Raises AssertionError for an endpoint that nobody has said the shape of."""
    for shape in SHAPES:
        if method in shape.methods.split() and re.fullmatch(shape.path, path):
            return shape
    raise AssertionError(f"{method} {path} has no shape here")


class _Lines:
    """Checks what is read so far, line by line."""

    def __init__(self, event: str) -> None:
        self._event = event
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data: ") and line != b"data: [DONE]":
                event = json.loads(line[6:])
                assert_matches("ErrorResponse" if "error" in event else self._event, event)


class _CheckedEvents(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A stream of events, checked on the way through. Only the way that fits the client is gone."""

    def __init__(self, stream: httpx2.SyncByteStream | httpx2.AsyncByteStream, event: str) -> None:
        self._stream = stream
        self._lines = _Lines(event)

    def __iter__(self) -> Iterator[bytes]:
        assert isinstance(self._stream, httpx2.SyncByteStream)
        for chunk in self._stream:
            self._lines.feed(chunk)
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert isinstance(self._stream, httpx2.AsyncByteStream)
        async for chunk in self._stream:
            self._lines.feed(chunk)
            yield chunk

    def close(self) -> None:
        assert isinstance(self._stream, httpx2.SyncByteStream)
        self._stream.close()

    async def aclose(self) -> None:
        assert isinstance(self._stream, httpx2.AsyncByteStream)
        await self._stream.aclose()


def _checked(request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
    """The response with its stream under watch. A whole answer must have been read."""
    shape = shape_of(request.method, request.url.path)
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        assert shape.event, f"{request.url.path} does not stream"
        response.stream = _CheckedEvents(response.stream, shape.event)
        return response
    if response.status_code != 200:
        assert_matches("ErrorResponse", response.json())
    elif shape.whole:
        assert_matches(shape.whole, _specified(shape, response.json()))
    return response


def _specified(shape: Shape, answer: Any) -> Any:
    """The answer without the events of the audit log that only this platform has."""
    if shape.whole != AUDIT_LOG:
        return answer
    return {**answer, "data": [event for event in answer["data"] if event["type"] in EVENT_TYPES]}


def _is_whole(response: httpx2.Response) -> bool:
    return not response.headers.get("content-type", "").startswith("text/event-stream")


class CheckedTransport(httpx2.HTTPTransport):
    """For `httpx2.Client`."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = super().handle_request(request)
        if _is_whole(response):
            response.read()
        return _checked(request, response)


class AsyncCheckedTransport(httpx2.AsyncHTTPTransport):
    """For `httpx2.AsyncClient`."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if _is_whole(response):
            await response.aread()
        return _checked(request, response)
