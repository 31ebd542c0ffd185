"""Records usage until it is killed; `python -m tests.services.billing.recorder FOLDER DATABASE_URL`.

Prints the id of every record once it is acknowledged.
"""

import asyncio
import os
import sys
from pathlib import Path

from services.billing.service import serving
from services.billing.settings import BillingSettings
from services.storage import Database
from tests.services.billing.usages import recording, usage


async def main() -> None:
    database = Database(sys.argv[2])
    await database.open()
    settings = BillingSettings(drain_interval_ms=1, drain_records=20, segment_bytes=10_000)
    async with serving(Path(sys.argv[1]), database, settings) as billing:
        while True:
            made = [usage() for _ in range(5)]
            await billing.record(recording(*made))
            os.write(sys.stdout.fileno(), "".join(f"{one.request_id}\n" for one in made).encode())
            await asyncio.sleep(0.001)


asyncio.run(main())
