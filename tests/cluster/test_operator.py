"""The operator of model pools on a real API server, with replicas that need no pods of their own."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from modelplane.pools.v1 import pools_pb2
from services.catalog import Catalog
from tests.cluster.control_plane import CommandError
from tests.cluster.operated import (
    DRAINING,
    NAMESPACE,
    READY,
    RELEASE,
    SCRIPTED,
    STARTING,
    World,
    forgotten,
    rendered,
    until,
    works,
    world,
)
from tests.fakes.pools import FakePools, served

__all__ = ("forgotten", "world")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "min above max": ({"replicas": {"min": 3, "max": 2}}, "replicas.min must not exceed replicas.max"),
    "no replicas": ({"replicas": {"min": 0, "max": 0}}, "replicas.max must be at least 1"),
    "an alias twice": ({"aliases": ["a", "a"]}, "Duplicate value"),
    "its own alias": ({"aliases": ["refused"]}, "aliases must not contain the model's name"),
    "free and priced": ({"free": True, "price": {"input": "1"}}, "a model is free or has a price, not both"),
    "a GPU for a script": ({"engine": "scripted", "resources": {"gpu": 1}}, "only engine vllm takes a GPU"),
    "a script for vLLM": ({"script": {"tokens": 3}}, "script is for engine scripted"),
    "arguments for a script": ({"engine": "scripted", "engineArgs": {"seed": 1}}, "engineArgs are for engine vllm"),
    "eyes for a script": ({"engine": "scripted", "vision": {}}, "vision is for engine vllm"),
    "weights for a script": (
        {"engine": "scripted", "weights": {"source": "huggingface", "path": "a"}},
        "weights are for engine vllm",
    ),
    "no claim": ({"weights": {"source": "claim"}}, "weights.claimName is for weights.source claim"),
    "a claim too many": ({"weights": {"claimName": "a"}}, "weights.claimName is for weights.source claim"),
    "no folder": ({"weights": {"source": "huggingface"}}, "needs weights.path"),
    "out of the folder": ({"weights": {"source": "huggingface", "path": "../a"}}, "must not contain '..'"),
    "a claim's root": (
        {"weights": {"source": "claim", "claimName": "a", "path": "/a"}},
        "weights.path of a claim is relative",
    ),
    "no quantity": ({"resources": {"cpu": "many"}}, "must be a quantity above 0"),
    "nothing of it": ({"resources": {"memory": "0"}}, "must be a quantity above 0"),
    "less than nothing": ({"resources": {"cpu": -1}}, "must be a quantity above 0"),
    "no target": ({"autoscaling": {"targetTokensPerSecond": 0}}, "should be greater than 0"),
    "less than nobody": ({"replicas": {"min": -1}}, "should be greater than or equal to 0"),
    "no image": ({"image": ""}, "should match"),
    "an unknown field": ({"replica": {}}, "unknown field"),
    "an unknown engine": ({"engine": "abacus"}, "Unsupported value"),
    "a bad name": ({"model": "a model"}, "should match"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_nonsense_is_refused_with_its_reason(world: World, case: str) -> None:
    spec, reason = REFUSED[case]
    with pytest.raises(CommandError, match=reason.replace("(", r"\(")):
        world.put("refused", **spec)


def test_an_object_that_makes_sense_is_completed(world: World) -> None:
    world.put("whole", resources={"cpu": 4, "memory": "16Gi", "gpu": 1}, aliases=["a"], price={"input": "0.15"})
    spec = world.get("modelpool", "whole")["spec"]
    assert spec["replicas"] == {"min": 1, "max": 1, "surge": 1}
    assert spec["weights"] == {"source": "package"}
    assert (spec["engine"], spec["contextTokens"], spec["free"]) == ("vllm", 2048, False)
    with pytest.raises(CommandError, match="model cannot be changed"):
        world.put("whole", model="other")
    with pytest.raises(CommandError, match="at most 40 characters"):
        world.put("a" * 41)
    with pytest.raises(CommandError, match="the models that the chart's values name"):
        world.put("platform")
    with pytest.raises(CommandError, match=r"replicas\.min must not exceed"):
        world.kubectl("scale", "modelpool", "whole", "--replicas=2")
    world.kubectl("delete", "modelpool", "whole")


def test_its_rights_are_few(world: World) -> None:
    account = world.plane.service_account(NAMESPACE, f"{RELEASE}-operator")
    world.kubectl("get", "modelpools", kubeconfig=account)
    world.kubectl("get", "configmap", f"{RELEASE}-models", kubeconfig=account)
    for refused in (
        ("get", "secrets"),
        ("get", "configmaps"),
        ("get", "configmap", "kube-root-ca.crt"),
        ("get", "pods"),
        ("delete", "modelpool", "nobody"),
        ("get", "lease", "another"),
        ("get", "deployments"),
    ):
        with pytest.raises(CommandError, match="forbidden"):
            world.kubectl(*refused, kubeconfig=account)
    with pytest.raises(CommandError, match="forbidden"):
        world.plane.kubectl("get", "modelpools", "--namespace", "default", kubeconfig=account)


def test_from_creation_to_deletion(world: World) -> None:
    world.put("life", **SCRIPTED, replicas={"min": 1, "max": 3}, autoscaling={"scaleUpAfterSeconds": 7})
    with world.operator() as process:
        until("the entry is written", lambda: bool(world.entry("life")), process)
        print(f"[operator] {process.resident_mib()} MiB resident")
        (spec,) = Catalog.parse({Path("life.toml"): world.entry("life").encode()}, Path("x"))
        assert (spec.name, spec.max_replicas, spec.scale_up_after_ms, spec.resources) == ("life", 3, 7000, {})
        until("it is known why it waits", lambda: world.condition("life", "Ready") == ("False", "NotServedYet"))
        world.serves("life", 1, ("r1", STARTING, ""), waiting_for="loading weights")
        until("it waits for its replica", lambda: world.condition("life", "Ready") == ("False", "Waiting"))
        world.serves("life", 1, ("r1", READY, "p1"), queued=2, running=5, output_tokens_per_s=12.34)
        until("it is ready", lambda: world.condition("life", "Ready") == ("True", "Serving"))
        status = world.status("life")
        shown = ("replicas", "readyReplicas", "wantedReplicas", "queued", "running", "outputTokensPerSecond")
        assert [status[name] for name in shown] == [1, 1, 1, 2, 5, 12.3]
        assert status["startupSeconds"] > 0
        assert "life" in (table := world.kubectl("get", "mp")) and "Serving" in table and "12.3" in table
        events = world.kubectl("get", "events", "--field-selector=involvedObject.kind=ModelPool")
        assert "Ready: 1 of 1 replicas are ready." in events

        world.put("life", **SCRIPTED, replicas={"min": 2, "max": 3})
        until(
            "the entry is changed", lambda: "min_replicas" in (e := world.entry("life")) and '"min_replicas" = 2' in e
        )
        world.kubectl("scale", "modelpool", "life", "--replicas=3")
        until("it is scaled", lambda: '"min_replicas" = 3' in world.entry("life"))

        world.kubectl("delete", "modelpool", "life", "--wait=false")
        until("the entry is gone", lambda: "life.toml" not in world.entries(), process)
        # `pools` has it still: a stream goes on.
        world.pools.pools["life"].MergeFrom(pools_pb2.PoolInfo(removed=True))
        until("it is ending", lambda: world.condition("life", "Progressing") == ("True", "Ending"))
        assert world.exists("life")
        world.pools.pools.clear()
        until("the object is gone", lambda: not world.exists("life"), process)
        assert process.running()


def test_two_pools_with_one_name(world: World) -> None:
    world.put("first", **SCRIPTED, aliases=["both"])
    with world.operator() as process:
        until("the first is there", lambda: bool(world.entry("first")), process)
        world.put("second", **SCRIPTED, aliases=["both"])
        until("the second is refused", lambda: world.condition("second", "Degraded") == ("True", "Refused"), process)
        assert "'both' is configured twice" in json.dumps(world.status("second"))
        assert "second.toml" not in world.entries()
        world.put("first", **SCRIPTED, aliases=[])
        until("the name is free", lambda: bool(world.entry("second")), process)
        world.kubectl("delete", "modelpool", "first", "second")
        assert world.entries() == set()


def test_two_pools_with_one_model(world: World) -> None:
    world.put("older", **SCRIPTED, model="same")
    with world.operator() as process:
        until("the older is there", lambda: bool(world.entry("older")), process)
        world.serves("same", 1, ("r1", READY, "p1"), entry="older")
        until("the older is ready", lambda: world.condition("older", "Ready") == ("True", "Serving"), process)
        world.put("newer", **SCRIPTED, model="same")
        until("the newer is refused", lambda: world.condition("newer", "Degraded") == ("True", "Refused"), process)
        # What the other serves is not its own, and does not keep it.
        assert world.condition("newer", "Ready") == ("False", "NotServedYet")
        assert world.status("newer")["readyReplicas"] == 0
        world.kubectl("delete", "modelpool", "newer")
        world.put("newer", **SCRIPTED, model="same")

        world.kubectl("delete", "modelpool", "older", "--wait=false")
        until("its entry is gone", lambda: "older.toml" not in world.entries(), process)
        world.pools.pools["same"].MergeFrom(pools_pb2.PoolInfo(removed=True))
        until("it is ending", lambda: world.condition("older", "Ready") == ("False", "Ending"), process)
        assert world.entries() == set()
        world.pools.pools.clear()
        until("the newer has the model", lambda: bool(world.entry("newer")), process)
        assert not world.exists("older")
        world.kubectl("delete", "modelpool", "newer")


def test_a_crash_in_the_middle_of_a_deletion(world: World) -> None:
    world.put("crash", **SCRIPTED)
    with world.operator() as process:
        until("the entry is written", lambda: bool(world.entry("crash")), process)
        world.serves("crash", 1, ("r1", DRAINING, "p1"), removed=True)
        until("it is seen", lambda: world.status("crash").get("replicas") == 1, process)
        world.kubectl("delete", "modelpool", "crash", "--wait=false")
        until("the entry is gone", lambda: "crash.toml" not in world.entries(), process)
        process.kill()
    assert world.exists("crash")
    world.pools.pools.clear()
    with world.operator("after-crash") as process:
        until("another process finishes it", lambda: not world.exists("crash"), process)


def test_a_second_one_takes_over(world: World) -> None:
    with world.operator("one") as one:
        until("one works", lambda: works(one), one)
        first = world.holder()
        with world.operator("two") as two:
            world.put("taken", **SCRIPTED)
            until("one acts", lambda: bool(world.entry("taken")), one)
            assert world.holder() == first
            one.kill()
            seconds = until("two has the lease after a crash", lambda: world.holder() not in (first, ""), two)
            assert seconds > 1.0
            second = world.holder()
            world.kubectl("delete", "modelpool", "taken", "--wait=false")
            until("two acts", lambda: not world.exists("taken"), two)
            with world.operator("three") as three:
                until("three waits", lambda: "another operator works" in three.tail(50), three)
                assert two.stop()
                seconds = until("three has it after an orderly end", lambda: world.holder() not in (second, ""), three)
                assert seconds < 2.5


def test_an_api_server_that_goes_away(world: World) -> None:
    world.put("gap", **SCRIPTED)
    with world.operator() as process:
        until("the entry is written", lambda: bool(world.entry("gap")), process)
        world.put("gap", **SCRIPTED, slots=7)
        world.plane.stop_apiserver()
        until("it is noticed", lambda: "a turn failed" in process.tail(100), None, 30)
        world.plane.start_apiserver()
        until("the change is carried out", lambda: '"slots" = 7' in world.entry("gap"), process)
        world.kubectl("delete", "modelpool", "gap", "--wait=false")
        until("the watch works again", lambda: not world.exists("gap"), process)
        assert "Traceback" not in process.log.read_text()


def test_pools_that_do_not_answer(world: World) -> None:
    with served(quiet := FakePools()):
        pass
    before, world.pools = world.pools, quiet
    try:
        world.put("deaf", **SCRIPTED)
        with world.operator(TIMEOUT_S="1") as process:
            until("the entry is written", lambda: bool(world.entry("deaf")), process)
            until("it is said", lambda: world.condition("deaf", "Ready") == ("Unknown", "PoolsUnknown"), process)
            world.kubectl("delete", "modelpool", "deaf", "--wait=false")
            until("the entry is gone", lambda: "deaf.toml" not in world.entries(), process)
            assert world.exists("deaf")
            with served(quiet):
                until("it goes once they answer", lambda: not world.exists("deaf"), process)
    finally:
        world.pools = before


def test_it_ends_when_its_account_is_removed(world: World) -> None:
    with world.operator() as process:
        until("it works", lambda: works(process), process)
        world.kubectl("delete", "serviceaccount", f"{RELEASE}-operator")
        until("it has ended", lambda: not process.running(), None, 40)
        assert process.stop()
        assert "the release was removed" in process.tail(100)
        assert "Traceback" not in process.log.read_text()
    world.plane.apply(*rendered(world.plane, "local"))


def test_a_signal_ends_it_in_order(world: World) -> None:
    with world.operator() as process:
        until("it works", lambda: works(process), process)
        process._running.send_signal(signal.SIGTERM)
        seconds = until("it has ended", lambda: not process.running(), None, 20)
        assert seconds < 10
        assert world.holder() == ""
