"""What the service `completions` promises, in memory."""

from modelplane.completions.v1 import completions_pb2 as pb
from services.faults import Fault, NotFound


class FakeCompletions:
    """Keeps everything for ever; the first `failures` calls of `put`, `finish` and `abandon` fail with `failure`."""

    def __init__(self) -> None:
        self.failure: Fault | None = None
        self.failures = 0
        self.stored: dict[str, pb.StoredCompletion] = {}
        # By project and key: the fingerprint, the token and the answer.
        self.keys: dict[tuple[str, str], tuple[bytes, str, pb.Answer | None]] = {}
        self._claims = 0

    async def put(self, request: pb.PutRequest, /) -> pb.PutResponse:
        self._fail()
        self.stored.setdefault(request.completion.id, request.completion)
        return pb.PutResponse()

    async def get(self, request: pb.GetRequest, /) -> pb.GetResponse:
        return pb.GetResponse(completion=self._find(request))

    async def list(self, request: pb.ListRequest, /) -> pb.ListResponse:
        found = [
            one
            for one in self.stored.values()
            if _owner(one) == _owner(request)
            and request.model in ("", one.model)
            and request.metadata.items() <= one.metadata.items()
        ]
        found.sort(key=_place, reverse=request.descending)
        if request.after:
            owner = {"organization_id": request.organization_id, "project_id": request.project_id}
            last = _place(self._find(pb.GetRequest(**owner, id=request.after)))
            found = [one for one in found if (_place(one) < last if request.descending else _place(one) > last)]
        page = pb.ListResponse(completions=found[: request.limit], has_more=len(found) > request.limit)
        for one in page.completions:
            one.ClearField("request_messages_json")
        return page

    async def update_metadata(self, request: pb.UpdateMetadataRequest, /) -> pb.UpdateMetadataResponse:
        completion = self._find(request)
        completion.metadata.clear()
        completion.metadata.update(request.metadata)
        return pb.UpdateMetadataResponse(completion=completion)

    async def delete(self, request: pb.DeleteRequest, /) -> pb.DeleteResponse:
        del self.stored[self._find(request).id]
        return pb.DeleteResponse()

    async def claim(self, request: pb.ClaimRequest, /) -> pb.ClaimResponse:
        name = request.project_id, request.key
        if name not in self.keys:
            self._claims += 1
            self.keys[name] = request.fingerprint, str(self._claims), None
            return pb.ClaimResponse(state=pb.CLAIM_STATE_CLAIMED, token=str(self._claims))
        fingerprint, _, answer = self.keys[name]
        if fingerprint != request.fingerprint:
            return pb.ClaimResponse(state=pb.CLAIM_STATE_MISMATCH)
        if answer is None:
            return pb.ClaimResponse(state=pb.CLAIM_STATE_RUNNING)
        return pb.ClaimResponse(state=pb.CLAIM_STATE_DONE, answer=answer)

    async def finish(self, request: pb.FinishRequest, /) -> pb.FinishResponse:
        self._fail()
        for name, (fingerprint, token, answer) in self.keys.items():
            if token == request.token and answer is None:
                self.keys[name] = fingerprint, token, request.answer
        return pb.FinishResponse()

    async def abandon(self, request: pb.AbandonRequest, /) -> pb.AbandonResponse:
        self._fail()
        self.keys = {name: held for name, held in self.keys.items() if held[1] != request.token or held[2] is not None}
        return pb.AbandonResponse()

    def _fail(self) -> None:
        if self.failure and self.failures > 0:
            self.failures -= 1
            raise self.failure

    def _find(self, request: pb.GetRequest | pb.UpdateMetadataRequest | pb.DeleteRequest) -> pb.StoredCompletion:
        found = self.stored.get(request.id)
        if found is None or _owner(found) != _owner(request):
            raise NotFound("completion_not_found", f"No stored chat completion found with id '{request.id}'.")
        return found


Owned = pb.StoredCompletion | pb.GetRequest | pb.ListRequest | pb.UpdateMetadataRequest | pb.DeleteRequest


def _owner(of: Owned) -> tuple[str, str]:
    return of.organization_id, of.project_id


def _place(completion: pb.StoredCompletion) -> tuple[int, str]:
    return completion.created_at_ms, completion.id
