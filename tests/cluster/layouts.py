"""Images as folders of blobs (OCI layouts), and as little as possible of them for a containerd that has the rest.

An image with an engine has gigabytes, of which a change of the project's code changes a few megabytes: those alone are
written, read and unpacked again. Kept true: what containerd is given is the image as buildah has it now.
"""

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tests.cluster import tools

ANNOTATION = "io.containerd.image.name"


def exported(name: str) -> Path:
    """The layout of an image in buildah's store, brought up to date. Raises ToolError when there is none."""
    folder = tools.cache() / "layouts" / name.rsplit("/", 1)[-1].replace(":", "-")
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / ".image"
    now = identity(name)
    if not mark.exists() or mark.read_text() != now:
        push(name, folder)
        mark.write_text(now)
    return folder


def identity(name: str) -> str:
    """The image's own hash."""
    command = ("buildah", "inspect", "--type", "image", "--format", "{{.FromImageID}}", name)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise tools.ToolError(f"there is no image {name}: python -m images.build --local-base")
    return done.stdout.strip()


def push(name: str, folder: Path) -> None:
    """Writes the layers that the folder does not have, and removes those that the image has no more."""
    (folder / "index.json").unlink(missing_ok=True)
    command = ("buildah", "push", "--quiet", name, f"oci:{folder}:latest")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise tools.ToolError(f"buildah cannot write {name}: {done.stderr[-1000:]}")
    wanted = set(blobs(folder))
    for path in (folder / "blobs" / "sha256").iterdir():
        if path.name not in wanted:
            path.unlink()


def manifest(folder: Path) -> dict[str, Any]:
    """The one image's entry in the index."""
    (entry,) = json.loads((folder / "index.json").read_text())["manifests"]
    return dict(entry)


def blobs(folder: Path) -> Iterator[str]:
    """The hashes of all that the image is made of."""
    digest = _hash(manifest(folder))
    yield digest
    content = json.loads(_blob(folder, digest).read_text())
    yield _hash(content["config"])
    yield from (_hash(layer) for layer in content["layers"])


def write_archive(folder: Path, name: str, store: Path, out: IO[bytes]) -> None:
    """An OCI archive with the blobs that `store` (a folder of blobs) does not have yet."""
    index = {"schemaVersion": 2, "manifests": [manifest(folder) | {"annotations": {ANNOTATION: name}}]}
    with tarfile.open(fileobj=out, mode="w|") as archive:
        for file, text in (("oci-layout", '{"imageLayoutVersion": "1.0.0"}'), ("index.json", json.dumps(index))):
            member = tarfile.TarInfo(file)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
        for digest in blobs(folder):
            # A manifest and a configuration are always wanted; they are small.
            if not (store / digest).exists() or _blob(folder, digest).stat().st_size < 100_000:
                archive.add(_blob(folder, digest), arcname=f"blobs/sha256/{digest}")


def _hash(entry: Any) -> str:
    return str(entry["digest"]).removeprefix("sha256:")


def _blob(folder: Path, digest: str) -> Path:
    return folder / "blobs" / "sha256" / digest
