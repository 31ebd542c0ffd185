"""The real Envoy has the metrics that alerts and dashboards name."""

import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import yaml

from tests.charts.test_monitoring import ENVOY
from tests.cluster.network import free_port
from tests.cluster.processes import wait_until

PROGRAM = Path(sys.executable).with_name("envoy")
TYPES = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"


def address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def cluster(name: str, port: int) -> dict[str, object]:
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address(port)}}]}
    return {
        "name": name,
        "type": "STATIC",
        "outlier_detection": {},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}}
                if name == "control"
                else {"http_protocol_options": {}},
            }
        },
        "load_assignment": {"cluster_name": name, "endpoints": [endpoint]},
    }


def configuration(admin: int, port: int, backend: int, control: int) -> dict[str, object]:
    """A listener before a backend, under a control plane that is away."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": "backend"}}
    hosts = [{"name": "all", "domains": ["*"], "routes": [route]}]
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }
    manager = {
        "@type": f"{TYPES}.HttpConnectionManager",
        "stat_prefix": "edge",
        "route_config": {"virtual_hosts": hosts},
        "http_filters": [router],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {"name": "edge", "address": address(port), "filter_chains": [{"filters": filters}]}
    source = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0.2s"}
    service = {"envoy_grpc": {"cluster_name": "control"}}
    return {
        "node": {"id": "test", "cluster": "test"},
        "admin": {"address": address(admin)},
        "dynamic_resources": {
            "ads_config": {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [service]},
            "cds_config": source,
            "lds_config": source,
        },
        "static_resources": {
            "listeners": [listener],
            "clusters": [cluster("backend", backend), cluster("control", control)],
        },
    }


def test_envoy_has_what_rules_and_dashboards_name(tmp_path: Path) -> None:
    admin, port, backend, control = (free_port() for _ in range(4))
    file = tmp_path / "envoy.yaml"
    file.write_text(yaml.safe_dump(configuration(admin, port, backend, control)))
    command = [str(PROGRAM), "-c", str(file), "--concurrency", "1", "-l", "error", "--use-dynamic-base-id"]
    answering = subprocess.Popen(
        [sys.executable, "-m", "http.server", str(backend), "--bind", "127.0.0.1", "--directory", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def read(url: str) -> str:
        with urllib.request.urlopen(url, timeout=5) as response:
            text: str = response.read().decode()
            return text

    def passes() -> bool:
        try:
            return bool(read(f"http://127.0.0.1:{port}/"))
        except (urllib.error.URLError, OSError):
            return False

    def missing() -> set[str]:
        lines = read(f"http://127.0.0.1:{admin}/stats/prometheus").splitlines()
        return set(ENVOY) - {line.partition("{")[0].partition(" ")[0] for line in lines}

    try:
        # It listens when it has waited a moment for its control plane.
        wait_until("a request passes", passes, timeout_s=60)
        wait_until("its histograms are merged", lambda: not missing() or running.poll() is not None, timeout_s=15)
        assert not missing()
    except TimeoutError:
        raise AssertionError(f"Envoy has no {sorted(missing())}") from None
    finally:
        for process in (running, answering):
            process.terminate()
            process.wait(10)
