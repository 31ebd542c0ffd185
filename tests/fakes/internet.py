"""A small internet on loopback: real HTTP(S) servers, a network that leads public addresses to them, and names.

`Web` answers with the bytes that a test wrote, so that it can break every rule of HTTP. `Internet` connects like the
system does, but leads chosen addresses to a `Web` and shows what was connected to. `Names` is a resolver whose answer
may change each time it is asked. `Authority` signs the certificates.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

import httpcore2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.internet.addresses import IPAddress

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


class Authority:
    """Signs certificates for a test's servers; `client` is a context that trusts it and nobody else."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        everything = x509.BasicConstraints(ca=True, path_length=None)
        built = self._builder(self._name, self._key.public_key()).add_extension(everything, critical=True)
        certificate = built.sign(self._key, hashes.SHA256())
        pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.client = ssl.create_default_context(cadata=pem)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(self._name, subject, key, x509.random_serial_number())
        return builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))

    def server(self, folder: Path, hosts: Sequence[str]) -> ssl.SSLContext:
        """A server's context for these names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = []
        for host in hosts:
            try:
                names.append(x509.IPAddress(ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        built = self._builder(x509.Name([]), key.public_key())
        signed = built.add_extension(x509.SubjectAlternativeName(names), critical=True).sign(self._key, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        chain = folder / f"{hosts[0].replace(':', '_')}.pem"
        chain.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        return context


class Web:
    """A server on loopback. `answers` maps a path to the raw answer, or to what writes it."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.connections = 0
        # The head of each request, in lower case.
        self.requests: list[str] = []
        # The names that TLS clients asked for.
        self.server_names: list[str | None] = []
        self.open = 0
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.requests.append(head.lower())
            answer = self.answers.get(head.split(" ")[1], b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            if isinstance(answer, bytes):
                writer.write(answer)
            else:
                await answer(writer)
            await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.open -= 1
            writer.close()

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator["Web"]:
        if tls is not None:
            tls.sni_callback = lambda _socket, name, _context: self.server_names.append(name)
        server = await asyncio.start_server(self._serve, host, 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()


class Listening(Protocol):
    """A server on loopback."""

    port: int


class Internet(httpcore2.AsyncNetworkBackend):
    """Connects to a server in place of the addresses that lead to it, and otherwise as the system does."""

    def __init__(self, webs: Mapping[str, Listening]) -> None:
        self._webs = webs
        self._system = httpcore2.AnyIOBackend()
        self.connected: list[tuple[str, int]] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        self.connected.append((host, port))
        if host not in self._webs:
            raise httpcore2.ConnectError("nobody is there")
        return await self._system.connect_tcp("127.0.0.1", self._webs[host].port, timeout, local_address, None)


class Names:
    """A resolver: each host has a list of answers, given in turn; the last one stays."""

    def __init__(self, answers: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self._answers = {host: list(turns) for host, turns in answers.items()}
        self.asked: list[str] = []

    async def resolve(self, host: str) -> Sequence[IPAddress]:
        self.asked.append(host)
        turns = self._answers.get(host)
        if not turns:
            raise OSError("no such host")
        answer = turns.pop(0) if len(turns) > 1 else turns[0]
        return [ip_address(text) for text in answer]


def answer(
    content: bytes, content_type: str = "image/png", status: str = "200 OK", headers: Mapping[str, str] | None = None
) -> bytes:
    """A whole HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def redirect(to: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()
