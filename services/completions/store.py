"""The queries of stored completions and of idempotency keys. Times are milliseconds of the epoch, given by the caller.

Keeps true: a row is found only with the organisation and the project that it belongs to, and of two claims of a key
at the same time one wins.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from modelplane.completions.v1.completions_pb2 import (
    Answer,
    GetRequest,
    ListRequest,
    StoredCompletion,
)
from services.storage import Database

_COLUMNS = "id, organization_id, project_id, model, created_at_ms, metadata, request_messages_json, completion_json"
_MINE = "organization_id = %(organization_id)s AND project_id = %(project_id)s"

# The inner page reads sizes only; it has one row more than asked for, to see whether there are more.
_LIST = """
SELECT id, organization_id, project_id, model, created_at_ms, metadata, ''::bytea,
    CASE WHEN place <= %(limit)s AND before < %(max_bytes)s THEN completion_json END
FROM (
    SELECT *, row_number() OVER page AS place,
        sum(octet_length(completion_json)) OVER page - octet_length(completion_json) AS before
    FROM (
        SELECT * FROM stored_completions
        WHERE {conditions} ORDER BY created_at_ms {direction}, id {direction} LIMIT %(limit)s + 1
    ) AS found
    WINDOW page AS (ORDER BY created_at_ms {direction}, id {direction})
) AS numbered
ORDER BY place
"""
# Takes a key that is free: never used, too old, or of a request that was lost.
_CLAIM = """
INSERT INTO idempotency_keys AS kept (project_id, key, token, fingerprint, leased_until_ms, expires_at_ms)
VALUES (%(project_id)s, %(key)s, %(token)s, %(fingerprint)s, %(leased_until_ms)s, %(expires_at_ms)s)
ON CONFLICT (project_id, key) DO UPDATE SET
    token = excluded.token, fingerprint = excluded.fingerprint, leased_until_ms = excluded.leased_until_ms,
    expires_at_ms = excluded.expires_at_ms, status = NULL, content_type = NULL, body = NULL
WHERE kept.expires_at_ms <= %(now_ms)s OR (kept.status IS NULL AND kept.leased_until_ms <= %(now_ms)s)
"""


class Claim(NamedTuple):
    """A wish to take a key."""

    project_id: str
    key: bytes
    token: str
    fingerprint: bytes
    now_ms: int
    leased_until_ms: int
    expires_at_ms: int


class Held(NamedTuple):
    """What is known of a key that another request has taken; `answer` once that was served."""

    fingerprint: bytes
    answer: Answer | None


class Page(NamedTuple):
    """Some of a list."""

    completions: Sequence[StoredCompletion]
    has_more: bool


class CompletionsStore:
    """What the service asks of the database. Every method may raise database_unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, completion: StoredCompletion) -> None:
        """Changes nothing where the id is known."""
        values = (
            completion.id,
            completion.organization_id,
            completion.project_id,
            completion.model,
            completion.created_at_ms,
            pairs(completion.metadata),
            completion.request_messages_json,
            completion.completion_json,
        )
        async with self._database.connection() as connection:
            await connection.execute(
                f"INSERT INTO stored_completions ({_COLUMNS}) "  # noqa: S608
                "VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING",
                values,
            )

    async def get(self, request: GetRequest) -> StoredCompletion | None:
        return await self._one(f"SELECT {_COLUMNS} FROM stored_completions WHERE {_MINE} AND id = %(id)s", request)  # noqa: S608

    async def page(self, request: ListRequest, max_bytes: int) -> Page | None:
        """None when there is no completion `after`. A page ends with the completion that brings it to `max_bytes`."""
        conditions = [_MINE]
        values: dict[str, Any] = {**_owner(request), "limit": request.limit, "max_bytes": max_bytes}
        if request.model:
            conditions.append("model = %(model)s")
            values["model"] = request.model
        if request.metadata:
            conditions.append("metadata @> %(metadata)s::text[]")
            values["metadata"] = pairs(request.metadata)
        async with self._database.connection() as connection:
            if request.after:
                found = await connection.execute(
                    f"SELECT created_at_ms FROM stored_completions WHERE {_MINE} AND id = %(id)s",  # noqa: S608
                    {**_owner(request), "id": request.after},
                )
                if (last := await found.fetchone()) is None:
                    return None
                conditions.append(f"(created_at_ms, id) {'<' if request.descending else '>'} (%(after_ms)s, %(after)s)")
                values |= {"after_ms": last[0], "after": request.after}
            direction = "DESC" if request.descending else "ASC"
            query = _LIST.format(conditions=" AND ".join(conditions), direction=direction)
            rows = await (await connection.execute(query, values)).fetchall()
        completions = [_completion(row) for row in rows if row[-1] is not None]
        return Page(completions, has_more=len(completions) < len(rows))

    async def update_metadata(self, request: GetRequest, metadata: Mapping[str, str]) -> StoredCompletion | None:
        return await self._one(
            f"UPDATE stored_completions SET metadata = %(metadata)s WHERE {_MINE} AND id = %(id)s "  # noqa: S608
            f"RETURNING {_COLUMNS}",
            request,
            metadata=pairs(metadata),
        )

    async def delete(self, request: GetRequest) -> bool:
        """False when there is no such completion."""
        async with self._database.connection() as connection:
            deleted = await connection.execute(
                f"DELETE FROM stored_completions WHERE {_MINE} AND id = %(id)s",  # noqa: S608
                {**_owner(request), "id": request.id},
            )
        return deleted.rowcount > 0

    async def claim(self, claim: Claim) -> Held | None:
        """None when the key is now the caller's."""
        async with self._database.connection() as connection:
            while True:
                taken = await connection.execute(_CLAIM, claim._asdict())
                if taken.rowcount:
                    return None
                found = await connection.execute(
                    "SELECT fingerprint, status, content_type, body FROM idempotency_keys "
                    "WHERE project_id = %s AND key = %s",
                    (claim.project_id, claim.key),
                )
                # It may have been abandoned between the two.
                if (row := await found.fetchone()) is not None:
                    break
        fingerprint, status, content_type, body = row
        answer = None if status is None else Answer(status=status, content_type=content_type, body=body)
        return Held(fingerprint, answer)

    async def finish(self, token: str, answer: Answer) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE idempotency_keys SET status = %s, content_type = %s, body = %s "
                "WHERE token = %s AND status IS NULL",
                (answer.status, answer.content_type, answer.body, token),
            )

    async def abandon(self, token: str) -> None:
        async with self._database.connection() as connection:
            await connection.execute("DELETE FROM idempotency_keys WHERE token = %s AND status IS NULL", (token,))

    async def clean(self, created_before_ms: int, now_ms: int, most: int) -> int:
        """Removes up to `most` rows of each table that are too old; gives how many there were."""
        async with self._database.connection() as connection:
            completions = await connection.execute(
                "DELETE FROM stored_completions WHERE id IN ("
                "SELECT id FROM stored_completions WHERE created_at_ms < %s LIMIT %s FOR UPDATE SKIP LOCKED)",
                (created_before_ms, most),
            )
            keys = await connection.execute(
                "DELETE FROM idempotency_keys WHERE token IN ("
                "SELECT token FROM idempotency_keys WHERE expires_at_ms <= %s LIMIT %s FOR UPDATE SKIP LOCKED)",
                (now_ms, most),
            )
        return completions.rowcount + keys.rowcount

    async def _one(self, query: str, request: GetRequest, **values: Any) -> StoredCompletion | None:
        async with self._database.connection() as connection:
            found = await connection.execute(query, {**_owner(request), "id": request.id, **values})
            row = await found.fetchone()
        return _completion(row) if row else None


def pairs(metadata: Mapping[str, str]) -> list[str]:
    """Metadata as it is stored and searched."""
    return [msgspec.json.encode(pair).decode() for pair in metadata.items()]


def _owner(request: GetRequest | ListRequest) -> dict[str, Any]:
    return {"organization_id": request.organization_id, "project_id": request.project_id}


def _completion(row: tuple[Any, ...]) -> StoredCompletion:
    id_, organization_id, project_id, model, created_at_ms, metadata, request_messages_json, completion_json = row
    return StoredCompletion(
        id=id_,
        organization_id=organization_id,
        project_id=project_id,
        model=model,
        created_at_ms=created_at_ms,
        metadata=dict(msgspec.json.decode(pair) for pair in metadata),
        request_messages_json=request_messages_json,
        completion_json=completion_json,
    )
