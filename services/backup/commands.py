"""`modelplane backup` and `modelplane restore`: what people and schedules type, what they are told, exit statuses.

What does the work is loaded when there is work, since every command of the program passes by here.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from services.backup.manifest import DamagedError, Manifest, RefusedError
from services.backup.postgres import FailedError
from services.progress import Progress
from services.settings import Environment, SettingsError

if TYPE_CHECKING:
    Subcommands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

BACKUP: Final = "backup"
RESTORE: Final = "restore"
STREAM: Final = "-"
FAILED: Final = 1
# Trying again does not help.
REFUSED: Final = 3


def add_commands(subcommands: "Subcommands") -> None:
    """Both."""
    about = "copy everything that cannot be made again, while the platform runs"
    parser = subcommands.add_parser(
        BACKUP,
        help=about,
        description=f"{about}: the database, usage on its way there, the catalogue of models. Secrets stay out",
    )
    parser.add_argument("folder", help="where a folder named by the time is made, or - for a tar archive on stdout")
    parser.add_argument(
        "--with-secrets", action="store_true", help="also the pepper, the service token and the first run's keys"
    )
    parser.add_argument("--keep", type=_positive, metavar="N", help="remove all but the newest N backups there")
    about = "bring a backup into an empty database"
    parser = subcommands.add_parser(
        RESTORE, help=about, description=f"{about} and a new MODELPLANE_HOME; whatever does not fit changes nothing"
    )
    parser.add_argument("folder", type=Path, help="a backup: the folder with manifest.json")
    parser.add_argument("--check", action="store_true", help="only see whether the backup is whole and can be restored")
    parser.add_argument(
        "--new-pepper", action="store_true", help="restore although no key of the backup will work any more"
    )


async def run(options: argparse.Namespace, environment: Environment) -> int:
    """The exit status: 0 when all is well, 1 when it failed, 3 when a restore was refused and has changed nothing.

    Raises SettingsError, StartError, OSError. Fault: database_unavailable.
    """
    try:
        async with Progress() as progress:
            if options.command == BACKUP:
                return await _backup(options, environment, progress)
            return await _restore(options, environment, progress)
    except (DamagedError, RefusedError, FailedError) as error:
        print(f"modelplane: {error}", file=sys.stderr)
        return FAILED if isinstance(error, FailedError) else REFUSED


async def _backup(options: argparse.Namespace, environment: Environment, progress: Progress) -> int:
    from services.backup import making

    if options.folder == STREAM:
        if options.keep:
            raise SettingsError("--keep is for a folder")
        stream = sys.stdout.buffer
        await making.to_stream(stream, environment, progress, with_secrets=options.with_secrets)
        stream.flush()
        return 0
    folder = Path(options.folder)
    made = await making.into_folder(folder, environment, progress, with_secrets=options.with_secrets)
    progress.end()
    print(made.path)
    print(_about(made.manifest))
    if not options.with_secrets:
        print("Secrets are not in it: keep the pepper (secrets.json, MODELPLANE_AUTH_PEPPER) elsewhere.")
    for path in making.keep_newest(folder, options.keep) if options.keep else ():
        print(f"Removed {path}")
    return 0


async def _restore(options: argparse.Namespace, environment: Environment, progress: Progress) -> int:
    from services.backup import restoring

    if options.check:
        progress.step("checking the backup")
        found = await restoring.checked(options.folder)
        progress.end()
        print(f"It is whole. {_about(found)}")
        return 0
    done = await restoring.restore(options.folder, environment, progress, new_pepper=options.new_pepper)
    progress.end()
    print(f"Restored. {_about(done.manifest)}")
    if done.config:
        print(f"The models' configuration is in {done.config}: set MODELPLANE_CONFIG to it.")
    print("Start the platform, then run `modelplane audit`.")
    if done.waiting:
        print(f"modelplane: {done.waiting} files of usage wait in the home's spool for the next start", file=sys.stderr)
        return FAILED
    return 0


def _about(found: Manifest) -> str:
    size = sum(part.bytes for part in found.parts)
    return (
        f"{found.began_at}, Modelplane {found.program}, schema {found.revision}, {size:,} bytes: "
        f"{found.ledger.usage_records:,} usage records and {found.ledger.postings:,} postings; "
        f"{found.spooled_records:,} records on their way."
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of backups")
    return int(text)
