"""Commands that talk to a running platform over its gRPC port, a module per noun.

`modelplane up` leaves the address and the service token in `MODELPLANE_HOME`, readable by its owner only, so
that these commands need no options on the same machine. What they change is in the audit log, without a key.
"""

import argparse

from services.cli import keys, limits, orgs, people, projects
from services.cli.output import show
from services.cli.platform import Subcommands, connected
from services.settings import Environment


def add_commands(subcommands: Subcommands) -> None:
    """Every noun and its verbs."""
    for noun in (orgs, projects, people, keys, limits):
        noun.add_commands(subcommands)


async def run(options: argparse.Namespace, environment: Environment) -> None:
    """Carries out a parsed command. Raises SettingsError when no platform runs on this home."""
    async with connected(environment) as platform:
        show(await options.carry_out(platform, options), as_json=options.json)
