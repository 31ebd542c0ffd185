"""The commands of `modelplane`.

`modelplane up` runs the whole platform in one process on this machine; `modelplane serve auth,billing` runs any
subset, with gRPC to the rest; `modelplane migrate` brings a database up to date; `modelplane backup` and `restore` copy
what cannot be made again; `modelplane orgs`, `projects`, `users`, `invites`, `keys` and `limits` administer a running
platform.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence

import uvloop

from services import cli, compose, telemetry
from services.backup import commands as backups
from services.cli.advice import explained
from services.faults import Fault
from services.graph import SERVICES
from services.settings import Environment, PlatformSettings, SettingsError
from services.storage import StartError
from services.storage.migrate import upgrade
from services.up import up


def parser() -> argparse.ArgumentParser:
    """Of all commands; their help is what a stranger meets first."""
    commands = argparse.ArgumentParser(
        prog="modelplane",
        description="Serve models with OpenAI's API, and administer who may use them.",
        epilog="Start with `modelplane up`; the other commands then work on it, from a second terminal. "
        "`modelplane COMMAND --help` says more.",
    )
    subcommands = commands.add_subparsers(dest="command", required=True)
    up_about = "run the whole platform on this machine"
    up_command = subcommands.add_parser(
        "up",
        help=up_about,
        description=f"{up_about}, until Ctrl-C; its state and its first keys are in the folder that MODELPLANE_HOME "
        "names (default: .modelplane)",
    )
    up_command.add_argument("--edge", choices=["envoy"], help="listen with an Envoy in front of the gateway")
    serve_about = "run some services, with gRPC to the others"
    serve = subcommands.add_parser(
        "serve",
        help=serve_about,
        description=f"{serve_about}, whose host:port are in MODELPLANE_<SERVICE>_ADDRESS",
    )
    serve.add_argument("services", help=f"comma-separated names out of: {', '.join(SERVICES)}")
    migrate_about = "bring the database's schema up to date"
    subcommands.add_parser(
        "migrate",
        help=migrate_about,
        description=f"{migrate_about}, in the database that MODELPLANE_DATABASE_URL names; once it is, this does "
        "nothing. For services that are started with MODELPLANE_DATABASE_MIGRATE=false",
    )
    backups.add_commands(subcommands)
    cli.add_commands(subcommands)
    return commands


async def serve(names: str, environment: Environment) -> None:
    targets = [name.strip() for name in names.split(",") if name.strip()]
    settings = environment.group(PlatformSettings)
    with telemetry.configured(environment, targets, home=settings.home):
        await compose.run(targets, environment)


def migrate(environment: Environment) -> None:
    """Says from where to where. Raises StartError."""
    url = environment.group(PlatformSettings).database_url
    if url is None:
        raise SettingsError("migrate needs MODELPLANE_DATABASE_URL; the embedded database is migrated as it starts")
    done = upgrade(url)
    if done.before == done.after:
        print(f"The schema is at {done.after} already.")
    else:
        print(f"The schema went from {done.before or 'nothing'} to {done.after}.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; the result is the process's exit status."""
    options = parser().parse_args(arguments)
    try:
        environment = Environment.capture()
        match options.command:
            case "up":
                uvloop.run(up(environment, edge=options.edge is not None))
            case "serve":
                uvloop.run(serve(options.services, environment))
            case "migrate":
                migrate(environment)
            case backups.BACKUP | backups.RESTORE:
                return asyncio.run(backups.run(options, environment))
            case _:
                return asyncio.run(cli.run(options, environment))
    except (SettingsError, StartError, KeyError, OSError) as error:
        print(f"modelplane: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 2
    except Fault as fault:
        print(f"modelplane: {explained(fault)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
