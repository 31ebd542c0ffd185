"""Builds the images with docker, or with buildah where there is none (without root rights or a daemon).

`python -m images.build` builds both and prints their names. With `--local-base` the base is made here first, from
Debian's archive, for machines that reach no registry. `--archive FOLDER` also writes each image as an OCI archive,
which `ctr images import` and `skopeo` read, and its list of contents beside it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCAL_BASE = "localhost/modelplane-base:bookworm"
TARGETS = {"services": "modelplane", "worker": "modelplane-worker"}
# Authorities of a proxy between here and the package index; the builder trusts them while it downloads.
CERTIFICATES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")
SBOM = "/usr/share/doc/modelplane/sbom.json"


def version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def _output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def revision() -> str:
    """The commit, with a mark when the tree is not as committed."""
    try:
        commit = _output("git", "rev-parse", "HEAD")
        return f"{commit}-modified" if _output("git", "status", "--porcelain", "services", "protos") else commit
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def build(engine: str, target: str, name: str, base: str | None, created: str) -> None:
    command = [engine, "build", "--target", target, "--tag", name]
    if engine == "buildah":
        # `chroot` needs no privileges of a container engine; layers are kept for the next build.
        command += ["--isolation", "chroot", "--layers", "--format", "oci"]
        if (wheels := Path.home() / ".cache" / "uv").is_dir():
            command += ["--volume", f"{wheels}:/root/.cache/uv"]
    values = {"VERSION": version(), "REVISION": revision(), "CREATED": created}
    if base:
        values["BASE"] = base
    for key, value in values.items():
        command += ["--build-arg", f"{key}={value}"]
    if bundle := next((path for variable in CERTIFICATES if (path := os.environ.get(variable))), None):
        command += ["--secret", f"id=certificates,src={bundle}"]
    subprocess.run([*command, "."], cwd=ROOT, check=True, stdout=sys.stderr)


def archive(engine: str, name: str, folder: Path) -> Path:
    """Writes the image, and its list of contents, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = name.rsplit("/", 1)[-1].split(":", maxsplit=1)[0]
    path = folder / f"{stem}.tar"
    path.unlink(missing_ok=True)
    if engine == "buildah":
        subprocess.run([engine, "push", "--quiet", name, f"oci-archive:{path}:{name}"], check=True)
        container = _output(engine, "from", "--pull-never", name)
        try:
            mounted = _output(engine, "mount", container)
            shutil.copyfile(mounted + SBOM, folder / f"{stem}.sbom.json")
        finally:
            _output(engine, "rm", container)
    else:
        subprocess.run([engine, "save", "--output", str(path), name], check=True)
        listed = _output(engine, "run", "--rm", "--entrypoint", "cat", name, SBOM)
        (folder / f"{stem}.sbom.json").write_text(listed)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Builds Modelplane's container images.")
    parser.add_argument("targets", nargs="*", help=f"out of: {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--engine", choices=("docker", "buildah"), help="default: docker if it answers, else buildah")
    base = parser.add_mutually_exclusive_group()
    base.add_argument("--base", help="image to build on (default: the Dockerfile's)")
    base.add_argument("--local-base", action="store_true", help="make the base here, from Debian's archive")
    parser.add_argument("--registry", default="localhost", help="prefix of the names (default: %(default)s)")
    parser.add_argument("--tag", default=version(), help="default: %(default)s")
    parser.add_argument("--archive", type=Path, metavar="FOLDER", help="write OCI archives there too")
    options = parser.parse_args(arguments)
    if unknown := set(options.targets) - TARGETS.keys():
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    engine = options.engine or ("docker" if _docker_answers() else "buildah")
    if shutil.which(engine) is None:
        parser.error(f"{engine} is not installed (apt-get install buildah), and no docker answers")
    try:
        if options.local_base and not _has(engine, LOCAL_BASE):
            subprocess.run([str(ROOT / "images" / "base.sh"), LOCAL_BASE], check=True, stdout=sys.stderr)
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for target in options.targets or TARGETS:
            started = time.monotonic()
            name = f"{options.registry}/{TARGETS[target]}:{options.tag}"
            build(engine, target, name, LOCAL_BASE if options.local_base else options.base, created)
            print(f"{name}  ({time.monotonic() - started:.0f} s)", flush=True)
            if options.archive:
                print(archive(engine, name, options.archive), flush=True)
    except subprocess.CalledProcessError as error:
        print(f"images: {error.cmd[0]} failed", file=sys.stderr)
        return 1
    return 0


def _docker_answers() -> bool:
    """False for a client without a daemon too."""
    return (
        bool(shutil.which("docker"))
        and not subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    )


def _has(engine: str, name: str) -> bool:
    return (
        subprocess.run([engine, "inspect", "--type", "image", name], capture_output=True, check=False).returncode == 0
    )


if __name__ == "__main__":
    sys.exit(main())
