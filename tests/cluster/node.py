"""A real node beside a real control plane: containerd, kubelet, kube-proxy and a bridge for pods.

Everything is in the network of the process that starts it (see `network.isolated`) and in one folder, but for the
images: containerd keeps those in the cache, for the next run. Kept true: afterwards nothing else is left, no
container, mount, cgroup or network, and the settings of the kernel that kubelet changes are what they were.

`python -m tests.cluster.node FOLDER` cleans up after a test that was killed.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import yaml

from tests.cluster import tools
from tests.cluster.control_plane import PODS_RANGE, SERVICES_RANGE, ControlPlane
from tests.cluster.layouts import write_archive
from tests.cluster.network import ip
from tests.cluster.processes import Process, wait_until

NAME = "node1"
ADDRESS = "10.99.0.1"
DNS_ADDRESS = "10.96.0.10"
PODS_HERE = "10.244.0.0/24"
BRIDGE = "node0"
SYSCTLS = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")
PAUSE_IMAGE = "localhost/pause:1"
CGROUPS = Path("/sys/fs/cgroup")
SAVED = "sysctls"
# Where containerd keeps the blobs of images, below its root.
BLOBS = "io.containerd.content.v1.content/blobs/sha256"


class Node:
    """Made by `real_node`."""

    def __init__(self, plane: ControlPlane, root: Path) -> None:
        self.plane = plane
        self.root = root
        self.folder = plane.folder / "node"
        self.folder.mkdir(exist_ok=True)
        self.socket = self.folder / "containerd.sock"
        self.processes: dict[str, Process] = {}

    def ctr(self, *arguments: str) -> str:
        command = ("ctr", "--address", str(self.socket), "--namespace", "k8s.io", *arguments)
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def load(self, name: str, layout: Path) -> None:
        """Takes an image; what is there already is not read again."""
        started = time.monotonic()
        command = ("ctr", "--address", str(self.socket), "--namespace", "k8s.io", "images", "import", "-")
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as importing:
            assert importing.stdin is not None
            write_archive(layout, name, self.root / BLOBS, importing.stdin)
        if importing.returncode:
            raise RuntimeError(f"containerd does not take {name}:\n{self.processes['containerd'].tail()}")
        print(f"[node] loaded {name} in {time.monotonic() - started:.1f} s", flush=True)

    def start(self, images: Mapping[str, Path]) -> None:
        found = tools.installed(tools.NODE_PACKAGES)
        save_sysctls(self.folder)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        with suppress(OSError):  # there only where the module br_netfilter is
            Path("/proc/sys/net/bridge/bridge-nf-call-iptables").write_text("1")
        self._write_configuration(found["runc"])
        containerd = self._start(
            "containerd", str(found["containerd"]), "--config", str(self.folder / "containerd.toml")
        )
        wait_until("containerd answers", lambda: _answers(self.socket), process=containerd)
        self._end_containers()
        for name, layout in images.items():
            self.load(name, layout)
        self.start_kubelet()
        self._start(
            "proxy",
            str(self.plane.programs.proxy),
            f"--kubeconfig={self.plane.user('proxy', 'system:kube-proxy')}",
            "--proxy-mode=nftables",
            f"--cluster-cidr={PODS_RANGE}",
            f"--hostname-override={NAME}",
            # Limits of the whole machine, which are not ours.
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
            "--metrics-bind-address=127.0.0.1:10249",
            "--healthz-bind-address=127.0.0.1:10256",
        )
        wait_until("the node is ready", self.ready, process=self.processes["kubelet"])

    def start_kubelet(self) -> None:
        user = self.plane.user("kubelet", f"system:node:{NAME}", ("system:nodes",))
        self._start(
            "kubelet",
            str(self.plane.programs.kubelet),
            f"--config={self.folder / 'kubelet.yaml'}",
            f"--kubeconfig={user}",
            f"--root-dir={self.folder / 'kubelet'}",
            f"--cert-dir={self.folder / 'kubelet' / 'pki'}",
            f"--hostname-override={NAME}",
            f"--node-ip={ADDRESS}",
        )

    def ready(self) -> bool:
        nodes = self.plane.get("nodes")["items"]
        conditions = [condition for node in nodes for condition in node["status"].get("conditions", ())]
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def _start(self, name: str, *command: str) -> Process:
        process = Process(name, command, self.plane.folder / f"{name}.log")
        self.processes[name] = process
        return process

    def _write_configuration(self, runc: Path) -> None:
        networks = self.folder / "cni"
        networks.mkdir(exist_ok=True)
        (networks / "10-bridge.conflist").write_text(_networks(self.folder))
        (self.folder / "containerd.toml").write_text(_containerd(self.root, self.folder, networks, runc))
        (self.folder / "kubelet.yaml").write_text(_kubelet(self.socket, self.plane.authority.pair.certificate))

    def stop(self) -> None:
        for name in ("proxy", "kubelet"):
            if process := self.processes.get(name):
                process.stop()
        if (containerd := self.processes.get("containerd")) and containerd.running():
            self._end_containers()
            containerd.stop()
        clean(self.folder)

    def _end_containers(self) -> None:
        for task in self.ctr("tasks", "list", "--quiet").split():
            with suppress(subprocess.CalledProcessError):
                self.ctr("tasks", "kill", "--signal", "SIGKILL", task)
        time.sleep(0.5)
        for task in self.ctr("tasks", "list", "--quiet").split():
            with suppress(subprocess.CalledProcessError):
                self.ctr("tasks", "remove", "--force", task)
        for container in self.ctr("containers", "list", "--quiet").split():
            with suppress(subprocess.CalledProcessError):
                self.ctr("containers", "remove", container)


@contextmanager
def real_node(plane: ControlPlane, images: Mapping[str, Path]) -> Iterator[Node]:
    """A node that is ready, with these images loaded. `bridge` must have been called before the plane was made."""
    started = time.monotonic()
    with tools.locked("containerd"):
        node = Node(plane, tools.cache() / "containerd")
        try:
            node.start(images)
            print(f"[node] ready after {time.monotonic() - started:.1f} s", flush=True)
            yield node
        finally:
            node.stop()


def bridge() -> None:
    """Gives this network the node's address, and the host's own calls a way to Services."""
    ip("link", "add", BRIDGE, "type", "bridge")
    ip("address", "add", f"{ADDRESS}/24", "dev", BRIDGE)
    ip("link", "set", BRIDGE, "up")
    ip("route", "replace", SERVICES_RANGE, "dev", BRIDGE)
    # Real pods have these addresses; the bridge of the pods will route them.
    ip("route", "del", "local", "10.244.0.0/15", "dev", "lo")


def save_sysctls(folder: Path) -> None:
    """What `clean` puts back; the first one to save is right."""
    saved = folder / SAVED
    if not saved.exists():
        saved.write_text("\n".join(f"{name} {Path('/proc/sys', name).read_text().strip()}" for name in SYSCTLS))


def clean(folder: Path) -> None:
    """Ends what a node in this folder left: shims, mounts, cgroups, settings of the kernel."""
    for shim in _shims(folder):
        with suppress(psutil.NoSuchProcess):
            # With the first process of a container its others end too; without its shim, none would.
            for process in (*psutil.Process(shim).children(), psutil.Process(shim)):
                process.kill()
    for mount in sorted(_mounts(f"{folder}/"), reverse=True):
        if subprocess.run(("umount", mount), capture_output=True, check=False).returncode:
            subprocess.run(("umount", "--lazy", mount), capture_output=True, check=False)
    pods = [*CGROUPS.glob("*/kubepods"), CGROUPS / "kubepods"]
    for top in pods:
        for path in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
            with suppress(OSError):
                path.rmdir()
        with suppress(OSError):
            top.rmdir()
    if (saved := folder / SAVED).exists():
        for line in saved.read_text().splitlines():
            name, value = line.split()
            Path("/proc/sys", name).write_text(value)
    for namespace in _mounts("/run/netns/cni-"):
        # Ours are those whose pods are gone; another cluster's still hold processes.
        if not _in_use(Path(namespace)):
            subprocess.run(("umount", namespace), capture_output=True, check=False)
            with suppress(OSError):
                Path(namespace).unlink()


def leftovers(folder: Path) -> list[str]:
    """What `clean` should have removed and did not."""
    cgroups = [str(path) for path in (*CGROUPS.glob("*/kubepods"), CGROUPS / "kubepods") if path.exists()]
    return [
        *(f"process {pid}" for pid in _shims(folder)),
        *_mounts(f"{folder}/"),
        *_mounts("/run/netns/cni-"),
        *cgroups,
    ]


def _shims(folder: Path) -> list[int]:
    """The shims of this folder's containerd, which outlive it on purpose."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"containerd-shim" in words[0] and str(folder / "containerd.sock").encode() in words:
                found.append(int(path.parent.name))
    return found


def _mounts(prefix: str) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [target for line in lines if (target := line.split()[1]).startswith(prefix)]


def _in_use(namespace: Path) -> bool:
    try:
        number = namespace.stat().st_ino
    except OSError:
        return False
    for path in Path("/proc").glob("[0-9]*/ns/net"):
        with suppress(OSError):
            if path.stat().st_ino == number:
                return True
    return False


def _answers(socket: Path) -> bool:
    command = ("ctr", "--address", str(socket), "version")
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _networks(folder: Path) -> str:
    addresses = {
        "type": "host-local",
        "dataDir": str(folder / "addresses"),
        "ranges": [[{"subnet": PODS_HERE}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    pods = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": addresses}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [pods, ports]})


def _containerd(root: Path, folder: Path, networks: Path, runc: Path) -> str:
    return f"""
version = 2
root = "{root}"
state = "{folder}/containerd-state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{runc}"
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{networks}"
"""


def _kubelet(socket: Path, authority: Path) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "containerRuntimeEndpoint": f"unix://{socket}",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(authority)},
            },
            "authorization": {"mode": "Webhook"},
            "address": ADDRESS,
            "clusterDNS": [DNS_ADDRESS],
            "clusterDomain": "cluster.local",
            "resolvConf": "",
            "failSwapOn": False,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "maxPods": 100,
        }
    )


def main(arguments: Sequence[str]) -> int:
    for folder in arguments:
        clean(Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
