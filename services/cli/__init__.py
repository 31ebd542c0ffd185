"""Commands that talk to a running platform over its gRPC port, a module per noun.

`modelplane up` leaves the address and the service token in `MODELPLANE_HOME`, readable by its owner only, so
that these commands need no options on the same machine. What they change is in the audit log, without a key.
"""

import argparse

from services.cli import audit, credits, invoices, keys, limits, orgs, payments, people, prices, projects, usage  # noqa: A004 -- a noun
from services.cli.output import show
from services.cli.platform import Subcommands, connected
from services.settings import Environment


def add_commands(subcommands: Subcommands) -> None:
    """Every noun and its verbs."""
    for noun in (orgs, projects, people, keys, limits, prices, credits, payments, invoices, usage, audit):
        noun.add_commands(subcommands)


async def run(options: argparse.Namespace, environment: Environment) -> int:
    """Carries out a parsed command; the result is the exit status. Raises SettingsError when no platform runs on this
    home."""
    async with connected(environment) as platform:
        if options.command == audit.COMMAND:
            return await audit.run(platform.ledger, options)
        show(await options.carry_out(platform, options), as_json=options.json)
    return 0
