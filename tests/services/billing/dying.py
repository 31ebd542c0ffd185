"""Tells a spool of running requests and dies; `python -m tests.services.billing.dying FOLDER`."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from services.billing.settings import BillingSettings
from services.billing.spool import Spool
from tests.services.billing.usages import usage


async def main() -> None:
    spool = Spool(Path(sys.argv[1]), BillingSettings())
    await spool.open()

    def tell(request_id: str, output_tokens: int) -> None:
        spool.checkpoint([(request_id, usage(request_id, output_tokens).SerializeToString())])

    for request_id in ("running", "recorded", "released", "recorded-later"):
        tell(request_id, 1)
    tell("running", 5)
    spool.append([usage("recorded", 20).SerializeToString()])
    spool.recorded("recorded")
    spool.forget(["released"])
    tell("recorded-later", 9)
    # Dies after the write and before anybody knows of it.
    spool.append([usage("recorded-later", 30).SerializeToString()])
    os.kill(os.getpid(), signal.SIGKILL)


asyncio.run(main())
