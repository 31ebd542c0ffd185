"""Figures are of all pods or of none, of now or withheld; what autoscalers would wrongly act on never comes out."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from operators.metrics.figures import (
    FIGURES,
    STARTED,
    Board,
    Sample,
    Samples,
    UnknownFigureError,
    WithheldError,
    parse,
    selected,
)

IN_FLIGHT = "modelplane_requests_in_flight"
RATE = "modelplane_requests_per_second"
QUEUED = "modelplane_queued_requests"


def board(*groups: str) -> Board:
    return Board(groups or ("gateway",), window_s=20, stale_s=15)


def says(value: float, *, series: str = IN_FLIGHT, started: float = 1.0, **labels: str) -> Samples:
    return {STARTED: (Sample({}, started),), series: (Sample(labels, value),)}


def filled(values: Mapping[str, float], at_s: float = 0) -> Board:
    made = board()
    made.ready("gateway", values, at_s)
    for pod, value in values.items():
        made.add("gateway", pod, says(value), at_s)
    return made


def test_the_sum_of_all_pods_and_the_age_of_the_oldest() -> None:
    made = filled({"a": 3, "b": 4})
    made.add("gateway", "b", says(8), 5)
    assert made.read("gateway", IN_FLIGHT, {}, 6) == (3 + 6, 0)


def test_a_level_is_averaged_over_the_window_only() -> None:
    made = filled({"a": 100})
    for at_s in range(5, 45, 5):
        made.ready("gateway", ["a"], at_s)
        made.add("gateway", "a", says(at_s), at_s)
    assert made.read("gateway", IN_FLIGHT, {}, 40).value == (20 + 25 + 30 + 35 + 40) / 5


def test_a_pod_that_has_not_answered_yet_withholds_its_group() -> None:
    made = filled({"a": 3})
    made.ready("gateway", ["a", "b"], 5)
    with pytest.raises(WithheldError, match="1 of 2 pods of gateway have no new figure"):
        made.read("gateway", IN_FLIGHT, {}, 5)
    made.ready("gateway", ["a"], 6)
    assert made.read("gateway", IN_FLIGHT, {}, 6).value == 3


def test_an_old_figure_withholds_its_group() -> None:
    made = filled({"a": 3, "b": 4})
    made.ready("gateway", ["a", "b"], 16)
    made.add("gateway", "a", says(3), 16)
    with pytest.raises(WithheldError, match="1 of 2"):
        made.read("gateway", IN_FLIGHT, {}, 16)


def test_an_old_list_of_pods_withholds_everything() -> None:
    made = filled({"a": 3})
    made.add("gateway", "a", says(3), 16)
    with pytest.raises(WithheldError, match="is not known"):
        made.read("gateway", IN_FLIGHT, {}, 16)


def test_a_group_without_pods_has_no_load_of_zero() -> None:
    made = board()
    with pytest.raises(WithheldError):
        made.read("gateway", IN_FLIGHT, {}, 0)
    made.ready("gateway", [], 0)
    with pytest.raises(WithheldError, match="no ready pod"):
        made.read("gateway", IN_FLIGHT, {}, 0)


def test_a_rate_needs_two_looks_at_one_life_of_a_pod() -> None:
    made = board()
    made.ready("gateway", ["a"], 0)
    made.add("gateway", "a", says(100, series="modelplane_requests_total"), 0)
    with pytest.raises(WithheldError):
        made.read("gateway", RATE, {}, 0)
    made.add("gateway", "a", says(150, series="modelplane_requests_total"), 5)
    assert made.read("gateway", RATE, {}, 5).value == 10
    made.add("gateway", "a", says(2, series="modelplane_requests_total", started=2), 10)
    with pytest.raises(WithheldError):
        made.read("gateway", RATE, {}, 10)


def test_a_series_that_was_not_used_yet_is_zero_and_a_missing_one_is_unknown() -> None:
    made = board()
    made.ready("gateway", ["a"], 0)
    made.add("gateway", "a", {STARTED: (Sample({}, 1),), "modelplane_router_queued_requests": ()}, 0)
    assert made.read("gateway", QUEUED, {"model": "m"}, 0).value == 0
    with pytest.raises(UnknownFigureError, match="have no modelplane_requests_in_flight"):
        made.read("gateway", IN_FLIGHT, {}, 0)
    for group, name in (("gateway", "modelplane_other"), ("other", IN_FLIGHT)):
        with pytest.raises(UnknownFigureError, match="there is no figure"):
            made.read(group, name, {}, 0)


def test_labels_choose() -> None:
    made = board("router")
    made.ready("router", ["a"], 0)
    series = (Sample({"model": "m"}, 3), Sample({"model": "n"}, 4))
    made.add("router", "a", {"modelplane_router_queued_requests": series}, 0)
    assert made.read("router", QUEUED, {"model": "n"}, 0).value == 4
    assert made.read("router", QUEUED, {}, 0).value == 7


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.floats(0, 8), st.sampled_from(("ready", "gone", "says"))), max_size=40
    ),
    st.floats(0, 20),
)
def test_what_comes_out_is_of_every_ready_pod_and_fresh(steps: list[tuple[str, float, str]], later_s: float) -> None:
    made, now_s = board(), 0.0
    pods: set[str] = set()
    said: dict[str, float] = {}
    listed_s = float("-inf")
    for pod, passes_s, what in steps:
        now_s += passes_s
        if what == "says":
            made.add("gateway", pod, says(1), now_s)
            if pod in pods:
                said[pod] = now_s
        else:
            pods = pods | {pod} if what == "ready" else pods - {pod}
            said = {name: at_s for name, at_s in said.items() if name in pods}
            made.ready("gateway", pods, now_s)
            listed_s = now_s
    now_s += later_s
    fresh = bool(pods) and all(now_s - said.get(pod, float("-inf")) <= 15 for pod in pods) and now_s - listed_s <= 15
    if fresh:
        reading = made.read("gateway", IN_FLIGHT, {}, now_s)
        assert (reading.value, reading.at_s) == (len(pods), min(said.values()))
    else:
        with pytest.raises(WithheldError):
            made.read("gateway", IN_FLIGHT, {}, now_s)


def test_a_page_of_the_library_is_understood() -> None:
    registry = CollectorRegistry()
    Gauge("modelplane_requests_in_flight", "x", registry=registry).set(3)
    Gauge("modelplane_requests_in_flight_other", "x", registry=registry).set(9)
    requests = Counter("modelplane_requests", "x", ["operation", "status"], registry=registry)
    requests.labels('with "quotes" and {braces}', "200").inc(5)
    Gauge("modelplane_router_queued_requests", "x", ["model"], registry=registry)
    assert parse(generate_latest(registry).decode()) == {
        "modelplane_requests_in_flight": (Sample({}, 3),),
        "modelplane_requests_total": (Sample({"operation": 'with "quotes" and {braces}', "status": "200"}, 5),),
        "modelplane_router_queued_requests": (),
    }
    with pytest.raises(ValueError):
        parse("modelplane_requests_in_flight many\n")


def test_every_figure_is_made_of_a_metric_that_exists() -> None:
    from docs.generate import metric_calls

    made = {f"{m.name}_total" if m.kind == "counter" else m.name for m in metric_calls()}
    assert {figure.series for figure in FIGURES.values()} - {"process_cpu_seconds_total"} <= made


def test_selectors() -> None:
    assert selected("") == {}
    assert selected("group=router, model==llama-3.1") == {"group": "router", "model": "llama-3.1"}
    for wrong in ("group", "group!=a", "group in (a,b)", "a=b,a=c", "!group"):
        with pytest.raises(ValueError, match="is not understood"):
            selected(wrong)
