from prometheus_client import REGISTRY, generate_latest

from services.tally import Tally


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
