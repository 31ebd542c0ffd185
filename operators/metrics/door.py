"""Who gets in: the cluster's API server, which shows the certificate of its front proxy, and nobody else.

The API server has authenticated and authorized whoever asked it before it passes a request on, so that nothing else is
checked here. Kept true: a connection without a certificate of the front proxy's authority ends in its handshake; the
certificate that is shown and the authority that is believed are the current ones for every new connection, without a
restart; a connection that is open is let in again only under a name that is allowed now.
"""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from operators.metrics.cluster import FrontProxy


class Door:
    """`context` is what the server listens with; `renew` changes what stands behind it."""

    def __init__(self, folder: Path, proxy: FrontProxy) -> None:
        self._folder = folder
        self._shown = b""
        self._proxy = proxy
        self.expires_at_s = 0.0
        self.context = self._current = self._make(self._files(), proxy)
        self.context.sni_callback = self._choose

    def renew(self, proxy: FrontProxy) -> bool:
        """Takes changed files and a changed authority; True when there was a change. Raises OSError and ValueError."""
        files = self._files()
        if files == self._shown and proxy == self._proxy:
            return False
        self._current = self._make(files, proxy)
        self._proxy = proxy
        return True

    def admits(self, certificate: dict[str, Any] | None) -> bool:
        """Whether a verified certificate, as Python's ssl shows it, bears a name that is allowed."""
        if not certificate:
            return False
        names = [value for part in certificate["subject"] for key, value in part if key == "commonName"]
        return not self._proxy.names or bool(self._proxy.names & set(names))

    def _files(self) -> bytes:
        return (self._folder / "tls.crt").read_bytes() + (self._folder / "tls.key").read_bytes()

    def _make(self, files: bytes, proxy: FrontProxy) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        # A resumed session would not be asked for its certificate again.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        context.load_verify_locations(cadata=proxy.authority)
        # A renewal in between parts them; that raises here, and the next call has both.
        context.load_cert_chain(self._folder / "tls.crt", self._folder / "tls.key")
        self.expires_at_s = ends_at_s(files.decode())
        self._shown = files
        return context

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _outer: ssl.SSLContext) -> None:
        connection.context = self._current


def ends_at_s(pem: str) -> float:
    """When the first certificate ends, in Unix time. Raises ValueError.

    Read out of its DER by hand: the standard library shows the dates of a peer's certificate only.
    """
    start, end = pem.index(ssl.PEM_HEADER), pem.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)
    certificate = ssl.PEM_cert_to_DER_cert(pem[start:end])
    _, signed = next(_parts(next(_parts(certificate))[1]))
    # Its version (which has a tag of its own), serial number, algorithm and issuer come before the two dates.
    parts = [content for tag, content in _parts(signed) if tag != 0xA0]
    _, (tag, date) = _parts(parts[3])
    form = "%y%m%d%H%M%SZ" if tag == 0x17 else "%Y%m%d%H%M%SZ"
    return datetime.strptime(date.decode(), form).replace(tzinfo=UTC).timestamp()


def _parts(der: bytes) -> Iterator[tuple[int, bytes]]:
    """The tag and the content of each value, one after the other."""
    while der:
        tag, length, start = der[0], der[1], 2
        if length > 0x7F:
            start += length & 0x7F
            length = int.from_bytes(der[2:start])
        yield tag, der[start : start + length]
        der = der[start + length :]
