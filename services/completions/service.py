"""Keeps completions that clients asked to store, and the first answers of requests with an idempotency key.

Keeps true: what belongs to another project is not there; an idempotency key is taken by one request at a time, and
comes free again when that one is abandoned or lost.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from modelplane.completions.v1 import completions_pb2 as pb
from services import telemetry
from services.completions.settings import CompletionsSettings
from services.completions.store import Claim, CompletionsStore
from services.compose import Context
from services.faults import Fault, InvalidRequest, NotFound

DAY_MS = 24 * 3600 * 1000
HOUR_MS = 3600 * 1000
MOST_LISTED = 100

log = telemetry.logger(__name__)


class Completions:
    """The contract CompletionsService. `clock` gives seconds of the epoch."""

    def __init__(
        self, store: CompletionsStore, settings: CompletionsSettings, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock

    async def put(self, request: pb.PutRequest, /) -> pb.PutResponse:
        completion = request.completion
        if not completion.id or _has_nul(completion.id, completion.model):
            raise InvalidRequest("invalid_value", "A stored completion needs an id and a model, without NUL.")
        self._check(len(completion.request_messages_json) + len(completion.completion_json))
        await self._store.put(completion)
        return pb.PutResponse()

    async def get(self, request: pb.GetRequest, /) -> pb.GetResponse:
        completion = None if _has_nul(request.id) else await self._store.get(request)
        if completion is None:
            raise _not_found(request.id)
        return pb.GetResponse(completion=completion)

    async def list(self, request: pb.ListRequest, /) -> pb.ListResponse:
        if not 1 <= request.limit <= MOST_LISTED:
            raise InvalidRequest("invalid_value", f"A page has 1 to {MOST_LISTED} completions.", param="limit")
        if _has_nul(request.after):
            raise _not_found(request.after, "after")
        if _has_nul(request.model):
            return pb.ListResponse()
        page = await self._store.page(request, self._settings.max_page_bytes)
        if page is None:
            raise _not_found(request.after, "after")
        return pb.ListResponse(completions=page.completions, has_more=page.has_more)

    async def update_metadata(self, request: pb.UpdateMetadataRequest, /) -> pb.UpdateMetadataResponse:
        completion = None
        if not _has_nul(request.id):
            completion = await self._store.update_metadata(_naming(request), request.metadata)
        if completion is None:
            raise _not_found(request.id)
        return pb.UpdateMetadataResponse(completion=completion)

    async def delete(self, request: pb.DeleteRequest, /) -> pb.DeleteResponse:
        if _has_nul(request.id) or not await self._store.delete(_naming(request)):
            raise _not_found(request.id)
        return pb.DeleteResponse()

    async def claim(self, request: pb.ClaimRequest, /) -> pb.ClaimResponse:
        now_ms = self._now_ms()
        claim = Claim(
            project_id=request.project_id,
            key=request.key.encode(),
            token=secrets.token_hex(16),
            fingerprint=request.fingerprint,
            now_ms=now_ms,
            leased_until_ms=now_ms + request.lease_ms,
            expires_at_ms=now_ms + int(self._settings.idempotency_hours * HOUR_MS),
        )
        held = await self._store.claim(claim)
        if held is None:
            return pb.ClaimResponse(state=pb.CLAIM_STATE_CLAIMED, token=claim.token)
        if held.fingerprint != claim.fingerprint:
            return pb.ClaimResponse(state=pb.CLAIM_STATE_MISMATCH)
        if held.answer is None:
            return pb.ClaimResponse(state=pb.CLAIM_STATE_RUNNING)
        return pb.ClaimResponse(state=pb.CLAIM_STATE_DONE, answer=held.answer)

    async def finish(self, request: pb.FinishRequest, /) -> pb.FinishResponse:
        self._check(len(request.answer.body))
        await self._store.finish(request.token, request.answer)
        return pb.FinishResponse()

    async def abandon(self, request: pb.AbandonRequest, /) -> pb.AbandonResponse:
        await self._store.abandon(request.token)
        return pb.AbandonResponse()

    async def clean(self) -> None:
        """Removes what is too old. Fault: database_unavailable."""
        now_ms = self._now_ms()
        created_before_ms = now_ms - int(self._settings.retention_days * DAY_MS)
        while removed := await self._store.clean(created_before_ms, now_ms, self._settings.clean_rows):
            log.info("removed what was too old", rows=removed)

    async def keep_clean(self) -> None:
        """Does so again and again."""
        while True:
            try:
                await self.clean()
            except Fault as fault:
                log.warning("nothing removed", reason=fault.reason)
            except Exception as error:  # the next round may go better
                log.error("nothing removed", exc_info=error)
            await asyncio.sleep(self._settings.clean_interval_s)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _check(self, size: int) -> None:
        limit = self._settings.max_object_bytes
        if size > limit:
            raise InvalidRequest("object_too_large", f"What is to be kept has {size} bytes; at most {limit} are kept.")


def _has_nul(*texts: str) -> bool:
    """True for what the database cannot hold, and so does not."""
    return any("\0" in text for text in texts)


def _naming(request: pb.UpdateMetadataRequest | pb.DeleteRequest) -> pb.GetRequest:
    return pb.GetRequest(organization_id=request.organization_id, project_id=request.project_id, id=request.id)


def _not_found(completion_id: str, param: str | None = None) -> Fault:
    return NotFound("completion_not_found", f"No stored chat completion found with id '{completion_id}'.", param=param)


@asynccontextmanager
async def serving(store: CompletionsStore, settings: CompletionsSettings) -> AsyncIterator[Completions]:
    """The service, which removes what is too old."""
    completions = Completions(store, settings)
    cleaning = asyncio.create_task(completions.keep_clean(), name="completions cleaner")
    try:
        yield completions
    finally:
        cleaning.cancel()
        await asyncio.wait([cleaning])


@asynccontextmanager
async def build(context: Context) -> AsyncIterator[Completions]:
    async with serving(CompletionsStore(context.database()), context.settings(CompletionsSettings)) as completions:
        yield completions
