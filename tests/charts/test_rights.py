"""Whom pods may talk to outside, what they may ask of the API server, and who goes first when a node is full."""

from collections.abc import Mapping
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest

from services.graph import SERVICES
from tests.charts.test_chart import TRIAL, Object, component, groups, pods, rendered

EGRESS = "networkPolicies.egress"
PORTS = {"database": 5432, "valkey": 6379, "apiServer": 6443, "internet": 443, "everyone": 4317}


@pytest.fixture(scope="module")
def closed() -> list[Object]:
    rules = (f"{EGRESS}.{kind}[0].ports[0].port={port}" for kind, port in PORTS.items())
    return rendered(*TRIAL, f"{EGRESS}.enabled=true", "operator.enabled=true", *rules)


def ports_out(objects: list[Object], labels: Mapping[str, str]) -> set[int]:
    """Where pods with these labels may go besides to one another."""
    policies = [one["spec"] for one in objects if one["kind"] == "NetworkPolicy"]
    mine = [
        spec
        for spec in policies
        if "Egress" in spec["policyTypes"] and spec["podSelector"]["matchLabels"].items() <= labels.items()
    ]
    assert mine, labels
    return {port["port"] for spec in mine for rule in spec["egress"] for port in rule.get("ports", ())}


def test_each_pod_may_talk_to_those_outside_that_it_needs(closed: list[Object]) -> None:
    needs = {"operator": {"apiServer"}, "migrate": {"database"}}
    for group, members in groups(closed).items():
        needs[group] = {"database"} if any(SERVICES[name].database for name in members) else set()
        needs[group] |= {"valkey"} if "ratelimit" in members else set()
        needs[group] |= {"internet"} if {"gateway", "notifications"} & set(members) else set()
        needs[group] |= {"apiServer"} if "xds" in members else set()
    seen = set()
    for name, _, labels in pods(closed):
        expected = {PORTS[kind] for kind in needs.get(component(labels), set())}
        assert ports_out(closed, labels) == expected | {53, PORTS["everyone"]}, name
        seen.add(component(labels))
    assert needs.keys() <= seen


def test_xds_alone_sees_who_is_there_and_has_the_certificate_of_clients() -> None:
    objects = rendered(*TRIAL)
    [role] = [one for one in objects if one["kind"] == "Role"]
    assert role["rules"] == [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}
    ]
    [binding] = [one for one in objects if one["kind"] == "RoleBinding"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "modelplane-xds", "namespace": "place"}]
    accounts = {name: spec["serviceAccountName"] for name, spec, _ in pods(objects) if "serviceAccountName" in spec}
    assert [name for name, account in accounts.items() if account == "modelplane-xds"] == ["Deployment/modelplane-xds"]
    holders = [name for name, spec, _ in pods(objects) if "modelplane-edge-tls" in secrets(spec)]
    assert holders == ["Deployment/modelplane-xds"]


def secrets(spec: Mapping[str, Any]) -> set[str]:
    return {volume["secret"]["secretName"] for volume in spec.get("volumes", ()) if "secret" in volume}


def test_the_hot_path_goes_first_and_pools_last() -> None:
    objects = rendered(*TRIAL, "priorityClasses.create=true", "priorityClasses.control.name=ours")
    classes = {one["metadata"]["name"]: one["value"] for one in objects if one["kind"] == "PriorityClass"}
    for one in objects:
        if one["kind"] == "PriorityClass":
            kubernetes_validate.validate(one, "1.35", strict=True)
    values = {
        component(labels): classes[spec["priorityClassName"]]
        for _, spec, labels in pods(objects)
        if "priorityClassName" in spec
    }
    assert values["envoy"] == values["gateway"] == values["router"] == max(values.values())
    assert values["pools"] == min(values.values()) < values["keys"] == classes["ours"] < values["gateway"]
    assert not [name for name, spec, _ in pods(rendered(*TRIAL)) if "priorityClassName" in spec]
