"""/v1/chat/completions by GET, and everything below it: the completions that were created with `store`."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from modelplane.completions.v1.completions_api import CompletionsService
from modelplane.completions.v1.completions_pb2 import (
    DeleteRequest,
    GetRequest,
    ListRequest,
    StoredCompletion,
    UpdateMetadataRequest,
)
from services.faults import InvalidRequest
from services.gateway.calls import Call
from services.gateway.requests.chat import BUILT
from services.gateway.requests.values import body_object, integer, missing, one_of, unknown, wrong_type

# An update has nothing but metadata in it: 16 pairs of 64 and 512 characters.
MOST_UPDATE_BYTES = 1024 * 1024
MOST_FIELDS = 64
DEFAULT_LIMIT = 20
MOST_LISTED = 100

_limit = integer(1, MOST_LISTED)
_order = one_of("asc", "desc")
_metadata = BUILT["metadata"]


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a list is asked for."""

    after: str = ""
    limit: int = DEFAULT_LIMIT
    descending: bool = False
    model: str = ""
    metadata: Mapping[str, str] = {}


class StoredCompletions:
    """The endpoints. What is another project's is as if it were not there."""

    def __init__(self, completions: CompletionsService) -> None:
        self._completions = completions

    async def list_all(self, call: Call) -> None:
        """A page, the oldest first unless `order` is `desc`."""
        owner = _owner(call)
        listing = parse_listing(call.query, ("model", "metadata"))
        page = await self._completions.list(
            ListRequest(
                **owner,
                model=listing.model,
                metadata=listing.metadata,
                after=listing.after,
                limit=listing.limit,
                descending=listing.descending,
            )
        )
        ids = [completion.id for completion in page.completions]
        items = [_completion(completion) for completion in page.completions]
        await call.respond(200, _page(ids, items, page.has_more))

    async def get(self, call: Call) -> None:
        owner = _owner(call)
        found = await self._completions.get(GetRequest(**owner, id=call.parameters["completion_id"]))
        await call.respond(200, _completion(found.completion))

    async def update(self, call: Call) -> None:
        owner = _owner(call)
        metadata = parse_update(await call.body(MOST_UPDATE_BYTES))
        request = UpdateMetadataRequest(**owner, id=call.parameters["completion_id"], metadata=metadata)
        await call.respond(200, _completion((await self._completions.update_metadata(request)).completion))

    async def delete(self, call: Call) -> None:
        owner = _owner(call)
        name = call.parameters["completion_id"]
        await self._completions.delete(DeleteRequest(**owner, id=name))
        gone = {"object": "chat.completion.deleted", "id": name, "deleted": True}
        await call.respond(200, msgspec.json.encode(gone))

    async def messages(self, call: Call) -> None:
        """A page of the messages that a completion answers."""
        owner = _owner(call)
        listing = parse_listing(call.query)
        found = await self._completions.get(GetRequest(**owner, id=call.parameters["completion_id"]))
        await call.respond(200, messages_page(found.completion, listing))


def parse_listing(query: bytes, filters: Sequence[str] = ()) -> Listing:
    """The query of a list. Raises InvalidRequest. `filters` are the names beyond those of every list."""
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise InvalidRequest("invalid_value", "The query of the URL has too many parameters.") from None
    values: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    for name, text in pairs:
        if "metadata" in filters and (key := METADATA.fullmatch(name)):
            metadata[key[1]] = text
        elif name == "limit":
            values["limit"] = _limit(name, _number(name, text))
        elif name == "order":
            values["descending"] = _order(name, text) == "desc"
        elif name == "after" or (name == "model" and name in filters):
            values[name] = text
        else:
            raise unknown(name)
    return Listing(**values, metadata=_metadata("metadata", metadata))


METADATA: Final = re.compile(r"metadata\[(.*)\]", re.DOTALL)


def _number(name: str, text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise wrong_type(name, "an integer", text)
    return int(text)


def parse_update(body: bytes) -> dict[str, str]:
    """The metadata that an update brings. Raises InvalidRequest."""
    fields = body_object(body)
    for name in fields:
        if name != "metadata":
            raise unknown(name)
    if "metadata" not in fields:
        raise missing("metadata")
    given = fields["metadata"]
    parsed: dict[str, str] = {} if given is None else _metadata("metadata", given)
    return parsed


def messages_page(completion: StoredCompletion, listing: Listing) -> bytes:
    """Some of the messages that a completion answers, as OpenAI's API shows them. Raises InvalidRequest for an `after`
    that is none of them. Only what is shown is looked into: there may be very many."""
    messages = msgspec.json.decode(completion.request_messages_json, type=list[msgspec.Raw])
    places = range(len(messages))
    if listing.descending:
        places = places[::-1]
    if listing.after:
        match = re.fullmatch(rf"{re.escape(completion.id)}-(0|[1-9][0-9]{{0,8}})", listing.after)
        if match is None or int(match[1]) not in places:
            raise InvalidRequest("invalid_value", f"No message found with id '{listing.after}'.", param="after")
        places = places[places.index(int(match[1])) + 1 :]
    shown = places[: listing.limit]
    ids = [f"{completion.id}-{place}" for place in shown]
    items = [
        msgspec.json.encode(_message(id_, msgspec.json.decode(messages[place])))
        for id_, place in zip(ids, shown, strict=True)
    ]
    return _page(ids, items, len(shown) < len(places))


def _message(message_id: str, message: dict[str, Any]) -> dict[str, Any]:
    said = {name: value for name, value in message.items() if value is not None}
    content, shown = said.get("content"), None
    if isinstance(content, list):
        shown = [part for part in content if part["type"] in ("text", "image_url")]
        texts = [part["text"] for part in content if part["type"] == "text"]
        content = "\n".join(texts) if texts else None
        refusals = [part["refusal"] for part in said["content"] if part["type"] == "refusal"]
        if refusals:
            said.setdefault("refusal", "\n".join(refusals))
    fixed = {"id": message_id, "content": content, "content_parts": shown}
    return {"refusal": None, "name": None, **said, **fixed}


def _owner(call: Call) -> Any:
    return {"organization_id": call.caller.organization_id, "project_id": call.caller.project_id}


def _completion(stored: StoredCompletion) -> bytes:
    metadata = msgspec.json.encode(dict(stored.metadata))
    return b'%b,"metadata":%b}' % (stored.completion_json[:-1], metadata)


def _page(ids: Sequence[str], items: Sequence[bytes], has_more: bool) -> bytes:
    """OpenAI's list. Its schema has the ids as strings, also where there are none."""
    first, last = (ids[0], ids[-1]) if ids else ("", "")
    tail = msgspec.json.encode({"first_id": first, "last_id": last, "has_more": has_more})
    return b'{"object":"list","data":[%b],%b' % (b",".join(items), tail[1:])
