"""The folder of a process's certificates, as an issuer writes and renews it."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from services.rpc.certificates import PEER_NAME
from services.rpc.settings import RpcSettings
from tests.cluster.certificates import Authority


class Secret:
    """A folder with `tls.crt`, `tls.key` and `ca.crt`, renewed as Kubernetes does it: by one link, all at once."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._authority = authority
        self._trusted: Sequence[Authority] = (authority,)
        self._number = 0
        self._write()
        for name in ("tls.crt", "tls.key", "ca.crt"):
            (folder / name).symlink_to(Path("..data") / name)

    @property
    def settings(self) -> RpcSettings:
        return RpcSettings(tls_folder=self.folder)

    def trust(self, *authorities: Authority) -> None:
        """Changes ca.crt."""
        self._trusted = authorities
        self._write()

    def renew(self, authority: Authority | None = None) -> None:
        """A new key and certificate, perhaps of another authority."""
        self._authority = authority or self._authority
        self._write()

    def _write(self) -> None:
        self._number += 1
        version = self.folder / f"..{self._number}"
        version.mkdir()
        issued = self._authority.issue(f"{self.folder.name}-{self._number}", "a process", names=(PEER_NAME,))
        shutil.copy(issued.certificate, version / "tls.crt")
        shutil.copy(issued.key, version / "tls.key")
        authorities = b"".join((one.folder / "ca.crt").read_bytes() for one in self._trusted)
        (version / "ca.crt").write_bytes(authorities)
        link = self.folder / "..new"
        link.symlink_to(version.name)
        os.replace(link, self.folder / "..data")  # noqa: PTH105 - over a link to a folder
