"""Ours say to Prometheus what its own client library would say."""

from prometheus_client import REGISTRY, CollectorRegistry, Histogram, generate_latest

from services.tally import HistogramTally, Tally


def test_counts_are_read_as_a_counter_of_prometheus() -> None:
    tally = Tally("tally_of_a_test", "What a test counts.", ["outcome"])
    try:
        tally.counts["whole"] += 1
        tally.counts["whole"] += 1
        tally.counts['of "all"'] += 1
        lines = [line for line in generate_latest().decode().splitlines() if "tally_of_a_test" in line]
        assert lines == [
            "# HELP tally_of_a_test_total What a test counts.",
            "# TYPE tally_of_a_test_total counter",
            'tally_of_a_test_total{outcome="whole"} 2.0',
            'tally_of_a_test_total{outcome="of \\"all\\""} 1.0',
        ]
    finally:
        REGISTRY.unregister(tally)


def test_several_labels_are_a_tuple() -> None:
    tally = Tally("tally_of_another_test", "What a test counts.", ["kind", "status"])
    try:
        tally.counts["chat", "200"] += 3
        assert REGISTRY.get_sample_value("tally_of_another_test_total", {"kind": "chat", "status": "200"}) == 3
    finally:
        REGISTRY.unregister(tally)


def test_what_is_known_is_shown_before_it_was_counted() -> None:
    tally = Tally("tally_with_known", "What a test counts.", ["outcome"], known=("whole",))
    try:
        assert REGISTRY.get_sample_value("tally_with_known_total", {"outcome": "whole"}) == 0
    finally:
        REGISTRY.unregister(tally)


def test_a_histogram_is_the_same_as_that_of_prometheus() -> None:
    bounds = (0.005, 0.1, 1.0, 2.5)
    ours = HistogramTally("tally_seconds", "How long a test takes.", ("kind", "model"), buckets=bounds)
    registry = CollectorRegistry()
    theirs = Histogram("tally_seconds", "How long a test takes.", ("kind", "model"), buckets=bounds, registry=registry)
    try:
        for value in (0.0, 0.005, 0.0051, 0.1, 0.75, 2.5, 2.6, 1e9):
            ours.observe(("chat", "m"), value)
            theirs.labels("chat", "m").observe(value)
        expected = [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]
        assert [line for line in generate_latest().decode().splitlines() if "tally_seconds" in line] == expected
        assert expected[2:7] == [
            'tally_seconds_bucket{kind="chat",le="0.005",model="m"} 2.0',
            'tally_seconds_bucket{kind="chat",le="0.1",model="m"} 4.0',
            'tally_seconds_bucket{kind="chat",le="1.0",model="m"} 5.0',
            'tally_seconds_bucket{kind="chat",le="2.5",model="m"} 6.0',
            'tally_seconds_bucket{kind="chat",le="+Inf",model="m"} 8.0',
        ]
    finally:
        REGISTRY.unregister(ours)
