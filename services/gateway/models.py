"""GET /v1/models and /v1/models/{model}: what can be asked for, as the router knows it."""

import msgspec

from modelplane.router.v1.router_api import RouterService
from modelplane.router.v1.router_pb2 import ListPoolsRequest, Pool
from services.faults import NotFound
from services.gateway.calls import Call
from services.gateway.pipeline import Pipeline


class Models:
    """Both endpoints."""

    def __init__(self, pipeline: Pipeline, router: RouterService) -> None:
        self._pipeline = pipeline
        self._router = router

    async def list_all(self, call: Call) -> None:
        call.operation = "models.list"
        pools = await self._pools(call)
        await call.respond(200, msgspec.json.encode({"object": "list", "data": [_model(pool) for pool in pools]}))

    async def get(self, call: Call) -> None:
        call.operation = "models.retrieve"
        name = call.parameters["model"]
        for pool in await self._pools(call):
            if pool.model == name:
                await call.respond(200, msgspec.json.encode(_model(pool)))
                return
        raise NotFound("model_not_found", f"The model '{name}' does not exist", param="model")

    async def _pools(self, call: Call) -> list[Pool]:
        call.principal = await self._pipeline.authenticate(*call.credentials())
        listed = await self._router.list_pools(ListPoolsRequest())
        return sorted((status.pool for status in listed.pools), key=lambda pool: pool.model)


def _model(pool: Pool) -> dict[str, object]:
    return {"id": pool.model, "object": "model", "created": pool.created_at, "owned_by": pool.owned_by}
