"""Commands that talk to a running platform over its gRPC port.

`modelplane up` leaves the address and the service token in `MODELPLANE_HOME`, readable by its owner only, so
that these commands need no options on the same machine.
"""

import argparse
from typing import TYPE_CHECKING

from modelplane.auth.v1 import auth_pb2
from modelplane.auth.v1.auth_api import AuthService
from services.home import Home
from services.rpc.connect import connect
from services.rpc.settings import RpcSettings
from services.settings import Environment, PlatformSettings, SettingsError

if TYPE_CHECKING:
    Subcommands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_commands(subcommands: "Subcommands") -> None:
    keys = subcommands.add_parser("keys", help="create and revoke project keys")
    actions = keys.add_subparsers(dest="action", required=True)
    create = actions.add_parser("create", help="make a key; its secret is printed once")
    create.add_argument("--name", default="", help="what the key is for")
    create.add_argument("--organization", default="", help="default: the first run's")
    create.add_argument("--project", default="", help="default: the first run's")
    revoke = actions.add_parser("revoke", help="make a key invalid everywhere, at once")
    revoke.add_argument("key_id")
    revoke.add_argument("--organization", default="", help="default: the first run's")


async def run(options: argparse.Namespace, environment: Environment) -> None:
    """Carries out a parsed command. Raises SettingsError when no platform runs on this home."""
    address = environment.address_of("auth")
    if address is None:
        home = Home(environment.group(PlatformSettings).home)
        address = home.rpc_address()
        if address is None:
            raise SettingsError(
                f"no platform runs on {home.path}; start one with `make up`, or set MODELPLANE_HOME, "
                "or MODELPLANE_AUTH_ADDRESS for an auth service elsewhere"
            )
        environment = Environment({**home.variables(), **environment.variables})
    async with connect(AuthService, address, environment.group(RpcSettings)) as auth:
        first = await auth.bootstrap(auth_pb2.BootstrapRequest())
        organization = options.organization or first.organization_id
        if options.action == "create":
            request = auth_pb2.CreateKeyRequest(
                organization_id=organization,
                project_id=options.project or first.project_id,
                name=options.name,
            )
            key = await auth.create_key(request)
            print(f"{key.key_id}\n{key.secret}")
        else:
            await auth.revoke_key(auth_pb2.RevokeKeyRequest(organization_id=organization, key_id=options.key_id))
            print(f"{options.key_id} is revoked")
