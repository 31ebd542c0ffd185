"""A real Kubernetes control plane: etcd, kube-apiserver, controller-manager and scheduler, in one folder.

Kept true: every port is free, every certificate is made for this run; what was started is ended by its id, etcd last
(an apiserver without it does not end); the API server can go away and come back in between, as it does in life.
"""

import json
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster import tools
from tests.cluster.certificates import Authority, key_pair
from tests.cluster.network import free_port
from tests.cluster.processes import Process, wait_until

SERVICES_RANGE = "10.96.0.0/16"
PODS_RANGE = "10.244.0.0/16"
API_ADDRESS = "10.96.0.1"
SERVER_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")


class CommandError(Exception):
    """helm or kubectl failed; the message is what it said."""


class ControlPlane:
    """Made by `control_plane`. `kubeconfig` is the administrator's."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.address = address
        self.port = free_port()
        self.url = f"https://{address}:{self.port}"
        self.programs = tools.kubernetes()
        self.authority = Authority(folder / "pki", "cluster")
        self.kubeconfig = self.user("admin", "admin", ("system:masters",))
        self.processes: dict[str, Process] = {}
        self._etcd_port, self._peer_port = free_port(), free_port()
        names = ("localhost", "127.0.0.1", address, API_ADDRESS, *SERVER_NAMES)
        self._serving = self.authority.issue("apiserver", "kube-apiserver", names=names)
        self._tokens = key_pair(folder / "pki", "accounts")

    def user(self, file: str, name: str, groups: Iterable[str] = ()) -> Path:
        """The kubeconfig of a user who has a certificate of this cluster."""
        pair = self.authority.issue(file, name, organizations=groups)
        user = {"client-certificate": str(pair.certificate), "client-key": str(pair.key)}
        return self._kubeconfig(file, user)

    def service_account(self, namespace: str, name: str) -> Path:
        """The kubeconfig of a service account, with the rights that it has and no others."""
        token = self.kubectl("create", "token", name, "--namespace", namespace, "--duration", "1h").strip()
        return self._kubeconfig(f"{namespace}-{name}", {"token": token})

    def _kubeconfig(self, file: str, user: dict[str, str]) -> Path:
        cluster = {"server": self.url, "certificate-authority": str(self.authority.pair.certificate)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
            "current-context": "test",
        }
        path = self.folder / f"{file}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        return path

    def kubectl(self, *arguments: str, stdin: str | None = None, kubeconfig: Path | None = None) -> str:
        """What it prints. Raises CommandError."""
        return self._command(tools.kubectl(), arguments, stdin, kubeconfig)

    def helm(self, *arguments: str, kubeconfig: Path | None = None) -> str:
        """What it prints. Raises CommandError."""
        return self._command(tools.helm(), arguments, None, kubeconfig)

    def _command(self, program: Path, arguments: tuple[str, ...], stdin: str | None, kubeconfig: Path | None) -> str:
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.folder),
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
            "NO_PROXY": "*",
        }
        done = subprocess.run(
            (str(program), *arguments), input=stdin, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise CommandError(f"{program.name} {' '.join(arguments)}: {done.stderr or done.stdout}")
        return done.stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        """Creates objects, or brings them to this state."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--server-side", "--force-conflicts", "--filename", "-", stdin=json.dumps(listed))

    def get(self, *arguments: str) -> Any:
        """An object, or a list of them, as `kubectl get` gives it."""
        return json.loads(self.kubectl("get", "--output", "json", *arguments))

    def ready(self) -> bool:
        context = ssl.create_default_context(cafile=str(self.authority.pair.certificate))
        context.load_cert_chain(self.authority.folder / "admin.crt", self.authority.folder / "admin.key")
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(f"{self.url}/readyz", timeout=5) as response:
                return bool(response.read() == b"ok")
        except (OSError, urllib.error.URLError):
            return False

    def start_etcd(self) -> None:
        client, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._peer_port}"
        self._start(
            "etcd",
            str(self.programs.etcd),
            "--name=test",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=test={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )

    def start_apiserver(self) -> float:
        """Seconds until it was ready."""
        authority = self.authority.pair.certificate
        kubelet = self.authority.issue("apiserver-kubelet", "apiserver-kubelet", organizations=("system:masters",))
        proxy = self.authority.issue("front-proxy", "front-proxy-client")
        process = self._start(
            "apiserver",
            str(self.programs.apiserver),
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            f"--bind-address={'127.0.0.1' if self.address == '127.0.0.1' else '0.0.0.0'}",
            f"--secure-port={self.port}",
            f"--advertise-address={self.address}",
            f"--endpoint-reconciler-type={'none' if self.address == '127.0.0.1' else 'lease'}",
            f"--service-cluster-ip-range={SERVICES_RANGE}",
            "--authorization-mode=Node,RBAC",
            f"--client-ca-file={authority}",
            f"--tls-cert-file={self._serving.certificate}",
            f"--tls-private-key-file={self._serving.key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._tokens.certificate}",
            f"--service-account-signing-key-file={self._tokens.key}",
            "--allow-privileged=true",
            "--enable-admission-plugins=NodeRestriction",
            f"--kubelet-client-certificate={kubelet.certificate}",
            f"--kubelet-client-key={kubelet.key}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--requestheader-client-ca-file={authority}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={proxy.certificate}",
            f"--proxy-client-key-file={proxy.key}",
            "--anonymous-auth=false",
            "--profiling=false",
            # Requests in flight need not be waited for when it is told to end.
            "--shutdown-delay-duration=0s",
        )
        return wait_until("the API server is ready", self.ready, process=process)

    def stop_apiserver(self) -> None:
        """As an upgrade of the cluster does: clients see refused connections until `start_apiserver`."""
        # It refuses connections at once, and then waits a minute for those who watch.
        self.processes["apiserver"].stop(timeout_s=1)

    def start_controllers(self) -> None:
        manager = self.user("controller-manager", "system:kube-controller-manager")
        scheduler = self.user("scheduler", "system:kube-scheduler")
        self._start(
            "controller-manager",
            str(self.programs.controller_manager),
            *_configs(manager),
            f"--secure-port={free_port()}",
            "--bind-address=127.0.0.1",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={self._tokens.key}",
            f"--root-ca-file={self.authority.pair.certificate}",
            f"--cluster-signing-cert-file={self.authority.pair.certificate}",
            f"--cluster-signing-key-file={self.authority.pair.key}",
            "--leader-elect=false",
            "--allocate-node-cidrs=true",
            f"--cluster-cidr={PODS_RANGE}",
            f"--service-cluster-ip-range={SERVICES_RANGE}",
            "--controllers=*",
            # The defaults hold back the default service account for 9 s, and a thousand pods for minutes.
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
            # Every quarter of a minute by itself.
            "--horizontal-pod-autoscaler-sync-period=2s",
        )
        self._start(
            "scheduler",
            str(self.programs.scheduler),
            *_configs(scheduler),
            f"--secure-port={free_port()}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
        )

    def _start(self, name: str, *command: str) -> Process:
        process = Process(name, command, self.folder / f"{name}.log")
        self.processes[name] = process
        return process

    def _has_default_account(self, namespace: str) -> bool:
        try:
            return bool(self.kubectl("get", "serviceaccount", "default", "--namespace", namespace))
        except CommandError:
            return False

    def wait_for_accounts(self, namespace: str = "default") -> float:
        """Seconds until pods can be made there: they need the default service account."""
        there = f"the default service account of {namespace} exists"
        return wait_until(there, lambda: self._has_default_account(namespace))

    def namespace(self, name: str, *, restricted: bool = False) -> None:
        """Makes a namespace in which pods can be made at once: any, or only those that may do nothing."""
        modes = ("enforce", "warn") if restricted else ()
        labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in modes}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        self.wait_for_accounts(name)

    def memory_mib(self) -> dict[str, int]:
        return {name: process.resident_mib() for name, process in self.processes.items() if process.running()}

    def stop(self) -> None:
        for name in ("scheduler", "controller-manager", "apiserver", "etcd"):
            if (process := self.processes.get(name)) and not process.stop():
                print(f"[cluster] {name} had to be killed", flush=True)


@contextmanager
def control_plane(folder: Path, address: str = "127.0.0.1") -> Iterator[ControlPlane]:
    """Ready to take pods. `address` is where nodes reach it, which must be one of this network's."""
    folder.mkdir(parents=True, exist_ok=True)
    plane = ControlPlane(folder, address)
    started = time.monotonic()
    try:
        plane.start_etcd()
        ready_s = plane.start_apiserver()
        plane.start_controllers()
        plane.wait_for_accounts()
        print(f"[cluster] API server ready in {ready_s:.1f} s, all in {time.monotonic() - started:.1f} s", flush=True)
        yield plane
    finally:
        plane.stop()


def _configs(kubeconfig: Path) -> tuple[str, ...]:
    return tuple(
        f"--{kind}={kubeconfig}" for kind in ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
    )
