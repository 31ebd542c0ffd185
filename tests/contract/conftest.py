"""Both wirings: the same test meets a service in its own process and behind a gRPC socket."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Protocol, TypeVar

import pytest

from services.rpc.connect import connect, descriptor_of
from services.rpc.serve import RpcServer
from services.rpc.settings import RpcSettings

ContractT = TypeVar("ContractT")


class Wire(Protocol):
    """`await wire(AuthService, Auth(...))` is what a caller of that contract gets: the object, or a client of it."""

    async def __call__(self, contract: type[ContractT], service: ContractT) -> ContractT: ...


async def local(contract: type[ContractT], service: ContractT) -> ContractT:
    return service


@pytest.fixture(params=["local", "grpc"])
async def wire(request: pytest.FixtureRequest) -> AsyncIterator[Wire]:
    if request.param == "local":
        yield local
        return
    async with AsyncExitStack() as stack:

        async def remote(contract: type[ContractT], service: ContractT) -> ContractT:
            settings = RpcSettings(token="shared by the processes of a platform")
            server = RpcServer(settings, {"service": descriptor_of(contract)})
            await server.start()
            stack.push_async_callback(server.stop, 0)
            server.place("service", service)
            await server.serving(True)
            return await stack.enter_async_context(connect(contract, server.address, settings))

        yield remote
