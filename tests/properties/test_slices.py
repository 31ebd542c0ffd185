"""However pods move between EndpointSlices, each is there once, as the slice says that changed last."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.cluster.slices import Slices

PODS = st.dictionaries(st.integers(0, 9), st.booleans(), max_size=6)
# What a slice holds after each event: pods with their readiness, or None when it was deleted.
EVENTS = st.lists(st.tuples(st.sampled_from("abc"), st.none() | PODS), max_size=20)


def piece(name: str, pods: dict[int, bool], version: int) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "resourceVersion": str(version)},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [
            {"addresses": [f"10.0.0.{pod}"], "conditions": {"ready": ready}, "targetRef": {"uid": str(pod)}}
            for pod, ready in pods.items()
        ],
    }


@given(EVENTS)
def test_each_pod_is_there_once_as_was_said_last(events: list[tuple[str, dict[int, bool] | None]]) -> None:
    slices = Slices("http")
    slices.listed({"metadata": {"resourceVersion": "0"}})
    known: dict[str, dict[int, bool]] = {}
    for version, (name, pods) in enumerate(events, start=1):
        known.pop(name, None)
        if pods is not None:
            known[name] = pods
        kind = "DELETED" if pods is None else "MODIFIED"
        slices.happened({"type": kind, "object": piece(name, pods or {}, version)})
        expected: dict[int, bool] = {}
        for some in known.values():
            expected |= some
        found = slices.addresses()
        assert {(one.ip, one.ready) for one in found} == {(f"10.0.0.{pod}", ready) for pod, ready in expected.items()}
        assert len(found) == len(expected) and slices.version == str(version)
        anew = Slices("http")
        anew.listed({"metadata": {"resourceVersion": "1"}, "items": [piece(*one, 1) for one in known.items()]})
        assert anew.addresses() == found
