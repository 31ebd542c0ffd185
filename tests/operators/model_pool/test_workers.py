"""The pods of a worker group: what they may do, what they offer, and when they are other pods."""

import json
from typing import Any

from operators.model_pool.workers import Platform, group_document, resource_of

PLATFORM = Platform("f-pools", "worker:1", tls_secret="inside", cache_claim="cache")


def made(**spec: Any) -> dict[str, Any]:
    return group_document("small", {"model": "m", **spec}, PLATFORM)


def container(**spec: Any) -> dict[str, Any]:
    [found] = made(**spec)["template"]["spec"]["containers"]
    return dict(found)


def test_a_pod_may_do_nothing_and_its_replica_has_all_of_it() -> None:
    found = container(resources={"cpu": "500m", "memory": "5Gi"})
    assert found["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert found["resources"] == {"requests": {"cpu": "500m", "memory": "5Gi"}, "limits": {"memory": "5Gi"}}
    # Ray's own choice would be nice 15.
    assert {"name": "RAY_worker_niceness", "value": "0"} in found["env"]


def test_a_group_offers_its_own_resource_and_is_named_by_what_its_pods_depend_on() -> None:
    group = made()
    assert json.loads(json.loads(group["rayStartParams"]["resources"])) == {resource_of(group["groupName"]): 1}
    assert made(price={"input": "1", "output": "2"})["groupName"] == group["groupName"]
    claimed = {"source": "claim", "claimName": "weights"}
    others: list[dict[str, Any]] = [{"image": "worker:2"}, {"resources": {"memory": "1Gi"}}, {"weights": claimed}]
    names = {made(**spec)["groupName"] for spec in others}
    assert len(names | {group["groupName"]}) == 4
