"""GET /v1/models and /v1/models/{model}: what can be asked for, as the router knows it."""

import msgspec

from modelplane.router.v1.router_api import RouterService
from modelplane.router.v1.router_pb2 import ListPoolsRequest, Pool
from services.gateway.access import may_use, no_model
from services.gateway.calls import Call


class Models:
    """Both endpoints. What a project may not use is as if it were not there."""

    def __init__(self, router: RouterService) -> None:
        self._router = router

    async def list_all(self, call: Call) -> None:
        pools = await self._pools(call)
        await call.respond(200, msgspec.json.encode({"object": "list", "data": [_model(pool) for pool in pools]}))

    async def get(self, call: Call) -> None:
        name = call.parameters["model"]
        for pool in await self._pools(call):
            if pool.model == name:
                await call.respond(200, msgspec.json.encode(_model(pool)))
                return
        raise no_model(name)

    async def _pools(self, call: Call) -> list[Pool]:
        policy = call.caller.models
        listed = await self._router.list_pools(ListPoolsRequest())
        pools = (status.pool for status in listed.pools if may_use(policy, status.pool.model))
        return sorted(pools, key=lambda pool: pool.model)


def _model(pool: Pool) -> dict[str, object]:
    return {"id": pool.model, "object": "model", "created": pool.created_at, "owned_by": pool.owned_by}
