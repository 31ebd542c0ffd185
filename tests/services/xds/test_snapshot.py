"""What Envoys are told is whole, whatever it is made of, and Envoy's own validation takes it."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseError
from hypothesis import given, settings
from hypothesis import strategies as st

from services.xds.bootstrap import ControlPlane, bootstrap, inside_secrets
from services.xds.certificate import Pair
from services.xds.documents import CERTIFICATE
from services.xds.fleet import Gateway
from services.xds.settings import XdsSettings
from services.xds.snapshot import (
    KINDS,
    InconsistentError,
    Resources,
    Snapshot,
    check,
    references,
    resources,
    snapshot,
)
from tests.cluster.certificates import Authority
from tests.fakes.envoys import BINARY

EVERYTHING: Mapping[str, Any] = {
    "requests_per_s": 10,
    "max_connections": 100,
    "edge_service": "a/b",
    "access_log_collector": "collector:4317",
    "trace_collector": "collector:4317",
}
HERE = Gateway("127.0.0.1", 8080)
PAIR = Pair(b"certificate", b"key")

gateways = st.frozensets(
    st.builds(
        Gateway,
        address=st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]),
        port=st.integers(1, 65535),
        zone=st.sampled_from(["", "a", "b"]),
    ),
    max_size=8,
).map(lambda some: {(one.address, one.port): one for one in some}.values())
shapes = st.builds(
    XdsSettings,
    requests_per_s=st.sampled_from([0, 5]),
    max_connections=st.sampled_from([0, 5]),
    http_port=st.sampled_from([0, 80]),
    https_port=st.sampled_from([0, 443]),
    edge_service=st.sampled_from(["", "a/b"]),
    access_log=st.booleans(),
    access_log_collector=st.sampled_from(["", "collector:4317"]),
    trace_collector=st.sampled_from(["", "collector:4317"]),
    inside_certificate=st.sampled_from(["", "/inside"]),
)


@settings(max_examples=50, deadline=None)
@given(shapes, gateways, st.sampled_from([None, PAIR]))
def test_whatever_it_is_made_of_it_is_whole(shape: XdsSettings, some: Any, pair: Pair | None) -> None:
    made = snapshot(shape, some, pair)
    check(made)
    again = snapshot(shape, reversed(list(some)), pair)
    assert [made.of(kind).version for kind in KINDS] == [again.of(kind).version for kind in KINDS]


@settings(max_examples=50, deadline=None)
@given(gateways, gateways)
def test_only_what_changes_has_another_version(before: Any, after: Any) -> None:
    one, other = (snapshot(XdsSettings(), some, None) for some in (before, after))
    changed = {kind for kind in KINDS if one.of(kind).version != other.of(kind).version}
    assert changed == ({"endpoints"} if frozenset(before) != frozenset(after) else set())


@settings(max_examples=50, deadline=None)
@given(shapes, st.sampled_from([None, PAIR]), st.data())
def test_without_something_that_is_referred_to(shape: XdsSettings, pair: Pair | None, data: st.DataObject) -> None:
    made = snapshot(shape, [HERE], pair)
    referred = {one for kind in KINDS for document in plain(made.of(kind)) for one in references(document)}
    kind, lost = data.draw(st.sampled_from(sorted(referred)))
    left = {name: packed for name, packed in made.of(kind).packed.items() if name != lost}
    with pytest.raises(InconsistentError, match=f"refers to {lost}, which is none of the {kind}"):
        check(made._replace(**{kind: made.of(kind)._replace(packed=left)}))


def test_two_of_a_name_or_an_address() -> None:
    made = snapshot(XdsSettings(), [HERE], None)
    for kind in ("clusters", "listeners", "routes", "endpoints"):
        one = made.of(kind)
        with pytest.raises(InconsistentError, match="twice"):
            check(made._replace(**{kind: one._replace(messages=[*one.messages, *one.messages])}))
    with pytest.raises(InconsistentError, match="one address"):
        check(snapshot(XdsSettings(http_port=80, https_port=80), [HERE], PAIR))
    with pytest.raises(InconsistentError, match="endpoint twice"):
        check(snapshot(XdsSettings(), [HERE, HERE._replace(zone="a")], None))


def test_a_field_that_envoy_does_not_know() -> None:
    with pytest.raises(ParseError, match="no field"):
        resources("clusters", [{"name": "a", "tyype": "EDS"}])


def test_a_draining_gateway_and_zones() -> None:
    made = snapshot(XdsSettings(), [HERE, Gateway("::1", 1, "b"), Gateway("10.0.0.1", 2, "b", True)], None)
    [_, assignment] = (MessageToDict(one) for one in sorted(made.endpoints.messages, key=lambda m: m.cluster_name))  # type: ignore[attr-defined]
    assert [one["locality"] for one in assignment["endpoints"]] == [{}, {"zone": "b"}]
    assert [one.get("healthStatus") for one in assignment["endpoints"][1]["lbEndpoints"]] == ["DRAINING", None]


@pytest.mark.parametrize("shape", [{}, EVERYTHING, {**EVERYTHING, "inside": True}], ids=["plain", "all", "inside"])
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_envoy_takes_it(tmp_path: Path, shape: Mapping[str, Any], tls: bool) -> None:
    authority = Authority(tmp_path, "ours")
    issued = authority.issue("edge", "edge", names=("modelplane.internal",))
    pair = Pair(issued.certificate.read_bytes(), issued.key.read_bytes())
    fields = dict(shape)
    control = ControlPlane("127.0.0.1:9000", "token")
    if fields.pop("inside", False):
        for name, document in inside_secrets(str(tmp_path)).items():
            (tmp_path / f"{name}.json").write_text(json.dumps(document))
        for name, file in (("tls.crt", issued.certificate), ("tls.key", issued.key)):
            (tmp_path / name).write_bytes(file.read_bytes())
        files = str(tmp_path / "inside.json"), str(tmp_path / "authority.json")
        fields |= dict(zip(("inside_certificate", "inside_authority"), files, strict=True))
        control = ControlPlane("xds:9000", "token", *files)
    made = snapshot(XdsSettings(**fields), [HERE], pair if tls else None)
    check(made)
    admin = {"pipe": {"path": str(tmp_path / "admin.sock")}}
    watch = {"socket_address": {"address": "127.0.0.1", "port_value": 9003}}
    config = tmp_path / "envoy.json"
    config.write_text(json.dumps(standing(made, bootstrap(control, node="n", admin=admin, zone="a", watch=watch))))
    done = subprocess.run(
        [BINARY, "--mode", "validate", "--config-path", config], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def standing(made: Snapshot, start: Mapping[str, Any]) -> dict[str, Any]:
    """The bootstrap with everything in it that would come over ADS, so that all of it is looked at."""
    routes = {one["name"]: one for one in plain(made.routes)}
    assignments = {one["cluster_name"]: one for one in plain(made.endpoints)}
    listeners = plain(made.listeners)
    for listener in listeners:
        for chain in listener["filter_chains"]:
            manager = chain["filters"][-1]["typed_config"]
            manager["route_config"] = routes[manager.pop("rds")["route_config_name"]]
            for context in [chain.get("transport_socket", {}).get("typed_config", {}).get("common_tls_context")]:
                if context:
                    context["tls_certificate_sds_secret_configs"] = [{"name": CERTIFICATE}]
    clusters = plain(made.clusters)
    for cluster in clusters:
        if cluster.pop("eds_cluster_config", None):
            cluster |= {"type": "STATIC", "load_assignment": assignments[cluster["name"]]}
    static = start["static_resources"]
    return {
        **start,
        "static_resources": {
            "clusters": [*static["clusters"], *clusters],
            "listeners": [*static["listeners"], *listeners],
            "secrets": plain(made.secrets),
        },
    }


def plain(some: Resources) -> list[dict[str, Any]]:
    return [MessageToDict(one, preserving_proto_field_name=True) for one in some.messages]
