"""The certificate by which this process is known to the others, and the authority by which it knows them.

They are files of a folder, in the shape of a Kubernetes secret, and are followed: when they are renewed, new
connections use the new ones, and open ones go on. Files that do not fit together, as in the middle of a renewal, are
left alone, and what was read before stays in force. Looking costs nothing but a clock until a second has passed.
"""

import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc

from services import telemetry
from services.rpc.settings import RpcSettings
from services.settings import SettingsError

log = telemetry.logger(__name__)

PEER_NAME: Final = "modelplane.internal"
"""What every internal certificate is for: processes are called by addresses, which come and go."""

CERTIFICATE, KEY, AUTHORITY = FILES = ("tls.crt", "tls.key", "ca.crt")
LOOK_EVERY_S: Final = 1.0
Stamp = tuple[tuple[int, int, int], ...]


class Material(NamedTuple):
    """What the files hold, in PEM. The authority may be several, while one takes the place of another."""

    certificate: bytes
    key: bytes
    authority: bytes


class Certificates:
    """The folder's files. Raises SettingsError when they cannot be used at the start."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._looked_at_s = clock()
        try:
            self._stamp = self._stat()
            self._material, self._context = self._read()
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"MODELPLANE_RPC_TLS_FOLDER={folder} must hold {', '.join(FILES)} that fit together: {error}"
            ) from error
        self._channel: tuple[Material, Any] | None = None

    @staticmethod
    def of(settings: RpcSettings) -> "Certificates | None":
        """Those that the settings name."""
        return None if settings.tls_folder is None else Certificates(settings.tls_folder)

    def current(self) -> Material:
        """What new connections use. May be called by any thread."""
        now_s = self._clock()
        if now_s - self._looked_at_s >= LOOK_EVERY_S:
            self._looked_at_s = now_s
            self._look()
        return self._material

    def channel_credentials(self) -> Any:
        """gRPC's credentials of a client; the same object until the files change, so that connections are shared."""
        material = self.current()
        if self._channel is None or self._channel[0] is not material:
            made = grpc.ssl_channel_credentials(material.authority, material.key, material.certificate)
            self._channel = (material, made)
        return self._channel[1]

    def server_credentials(self) -> Any:
        """gRPC's credentials of a server that asks everybody for a certificate and follows the files by itself."""

        def configuration() -> Any:
            material = self.current()
            return grpc.ssl_server_certificate_configuration([(material.key, material.certificate)], material.authority)

        return grpc.dynamic_ssl_server_credentials(configuration(), configuration, True)

    def server_context(self) -> ssl.SSLContext:
        """The same for servers other than gRPC's: each handshake takes what is current."""

        def choose(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            self.current()
            connection.context = self._context

        context = self._server_context(self._material)
        context.sni_callback = choose
        return context

    def _server_context(self, material: Material) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._folder / CERTIFICATE, self._folder / KEY)
        context.load_verify_locations(cadata=material.authority.decode())
        context.verify_mode = ssl.CERT_REQUIRED
        # The authority may be one that another has signed.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        # Whoever resumes a session is not asked for a certificate again, whatever became of its authority.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        return context

    def _look(self) -> None:
        try:
            stamp = self._stat()
            if stamp == self._stamp:
                return
            material, context = self._read()
            if self._stat() != stamp:
                return  # They are being written: the next look finds them whole.
        except (OSError, ValueError) as error:
            log.warning("renewed certificates cannot be used", folder=str(self._folder), error=str(error))
            return
        self._stamp, self._material, self._context = stamp, material, context
        log.info("certificates renewed", folder=str(self._folder))

    def _stat(self) -> Stamp:
        stats = [(self._folder / name).stat() for name in FILES]
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)

    def _read(self) -> tuple[Material, ssl.SSLContext]:
        """Raises OSError or ValueError for files that do not fit together."""
        material = Material(*((self._folder / name).read_bytes() for name in FILES))
        return material, self._server_context(material)
