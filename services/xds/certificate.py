"""The certificate that clients are shown, followed in its folder.

Contents are compared, so that a link that Kubernetes moves is noticed too. What it keeps true: what is given is a
certificate and its own key; files that do not fit together, as in the middle of a renewal, are waited for.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from services import telemetry
from services.settings import SettingsError

log = telemetry.logger(__name__)


class Pair(NamedTuple):
    """A certificate with the chain that it comes with, and its key, in PEM."""

    certificate: bytes
    key: bytes


def read(folder: Path) -> Pair:
    """Reads files. Raises OSError or ValueError for those that cannot be used."""
    files = folder / "tls.crt", folder / "tls.key"
    pair = Pair(*(file.read_bytes() for file in files))
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*files)
    if pair != Pair(*(file.read_bytes() for file in files)):
        raise ValueError("they are being written")
    return pair


async def follow(folder: Path, every_s: float) -> AsyncIterator[Pair]:
    """What is there now, and again after each renewal, for ever. Raises SettingsError when the first cannot be used."""
    try:
        known = await asyncio.to_thread(read, folder)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"MODELPLANE_XDS_CERTIFICATE_FOLDER={folder} must hold tls.crt and tls.key that fit together: {error}"
        ) from error
    yield known
    said = ""
    while True:
        await asyncio.sleep(every_s)
        try:
            found = await asyncio.to_thread(read, folder)
        except (OSError, ValueError) as error:
            if said != str(error):
                log.warning("a renewed certificate cannot be used", folder=str(folder), error=str(error))
            said = str(error)
            continue
        said = ""
        if found != known:
            known = found
            log.info("the certificate for clients is a new one", folder=str(folder))
            yield found
