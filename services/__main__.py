"""Where the `modelplane` command begins: with the allocator that it runs best on, before it imports all the rest."""

import sys
from collections.abc import Sequence

from services.allocator import prefer_jemalloc


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; the result is the process's exit status."""
    if arguments is None and _serves_clients(sys.argv[1:]):
        prefer_jemalloc()
    from services import command

    return command.main(arguments)


def _serves_clients(arguments: Sequence[str]) -> bool:
    """Whether the gateway will run in this process: it has the most to do at a request."""
    match arguments:
        case ["up", *_]:
            return True
        case ["serve", names, *_]:
            return "gateway" in [name.strip() for name in names.split(",")]
    return False


if __name__ == "__main__":
    sys.exit(main())
