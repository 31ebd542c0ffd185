"""Prepares the default model's weights where this machine does not have them yet, such as a new node of a cluster.

In a process of its own, since converting takes gigabytes that the replica must not keep. However many replicas
start at once, the first prepares and the others wait for it.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

from services.catalog import DEFAULT_MODEL, ModelSpec, checkpoint_directory

# The last file that preparing writes.
COMPLETE = "manifest.json"
PREPARE = (sys.executable, "-m", "services.chat_inference.engines.checkpoints")


async def prepare(spec: ModelSpec, cache: Path, report: Callable[[str], None]) -> None:
    """Returns when the model's weights are there; at once for any model but the default one.

    `report` is told each step. Raises RuntimeError when they cannot be prepared.
    """
    folder = checkpoint_directory(spec, cache)
    default = checkpoint_directory(DEFAULT_MODEL, cache)
    if spec.engine != "vllm" or folder != default or (folder / COMPLETE).exists():
        return
    process = await asyncio.create_subprocess_exec(
        *(*PREPARE, "--cache", str(cache)), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    errors = asyncio.create_task(process.stderr.read())
    try:
        while line := await process.stdout.readline():
            report(line.decode().strip())
        complaint = (await errors).decode().strip()
        if await process.wait() != 0:
            raise RuntimeError(f"the model could not be prepared: {complaint[-500:]}")
    finally:
        errors.cancel()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
