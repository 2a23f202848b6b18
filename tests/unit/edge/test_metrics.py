"""What is measured: as a scrape reads it, and never with more labels than were meant."""

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from handoff_common.telemetry import new_registry
from handoff_edge.metrics import BOUNDS, STAGES, Metrics, Watch, code_label
from handoff_edge.service_metrics import OpenByService, largest


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = generate_latest(metrics.registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_each_stage_takes_the_time_since_the_one_before() -> None:
    metrics = Metrics(new_registry())
    clock = iter([0, 2_000_000, 5_000_000_000])
    passed = Watch(metrics.stages, lambda: next(clock))
    passed("decide")
    passed("connect")
    found = samples(metrics)
    name = "handoff_edge_handshake_stage_seconds"
    assert found[f"{name}_sum", (("stage", "decide"),)] == 0.002
    assert found[f"{name}_sum", (("stage", "connect"),)] == 4.998
    assert {dict(labels)["stage"] for of, labels in found if of == f"{name}_count"} == set(STAGES)
    assert found[f"{name}_count", (("stage", "origin_tls"),)] == 0


@given(st.lists(st.floats(0, 20) | st.sampled_from([0.001, 0.0025, 1.0, 10.0])))
def test_durations_are_shown_as_the_librarys_own_histogram_would(durations: list[float]) -> None:
    metrics, theirs = Metrics(new_registry()), new_registry()
    name = "handoff_edge_handshake_seconds"
    histogram = Histogram(
        name, "From the whole head to the 101 at the client", buckets=BOUNDS, registry=theirs
    )
    for seconds in durations:
        metrics.handshake_seconds.observe(seconds)
        histogram.observe(seconds)
    expected = [
        line
        for line in generate_latest(theirs).decode().splitlines()
        if "_created" not in line  # When the process began is the process's own metric.
    ]
    shown = generate_latest(metrics.registry).decode().splitlines()
    assert [line for line in shown if name in line] == expected


def test_close_codes_that_anybody_can_make_up_share_a_label() -> None:
    assert [code_label(code) for code in (None, 1000, 1001, 1005, 1006, 1014, 1015)] == [
        *("none", "1000", "1001", "1005", "1006", "1014", "1015")
    ]
    assert {code_label(code) for code in range(65_536)} <= {
        *(str(code) for code in range(1000, 1016)),
        "other",
    }
    metrics = Metrics(new_registry())
    for code in range(3000, 5000):
        metrics.count_closed("client_closed", code)
    metrics.count_closed("drained", 1001)
    found = samples(metrics)
    name = "handoff_edge_connections_closed_total"
    assert found[name, (("close_code", "other"), ("reason", "client_closed"))] == 2000
    assert found[name, (("close_code", "1001"), ("reason", "drained"))] == 1
    assert sum(1 for of, _ in found if of == name) == 2


counts = st.dictionaries(st.text(max_size=3), st.integers(1, 9), max_size=12)


@settings(max_examples=200)
@given(counts, st.integers(0, 5))
def test_services_beyond_the_largest_are_summed(open_: Mapping[str, int], most: int) -> None:
    named, others = largest(open_.items(), most)
    assert len(named) == min(most, len(open_))
    assert sum(named.values()) + others == sum(open_.values())
    assert all(open_[service] == count for service, count in named.items())
    left = [count for service, count in open_.items() if service not in named]
    assert not left or not named or max(left) <= min(named.values())
    again, _ = largest(reversed(list(open_.items())), most)
    assert again == named, "it does not depend on the order"


def test_open_connections_by_service_are_bounded() -> None:
    metrics = Metrics(new_registry())
    open_ = {f"s{n}": n + 1 for n in range(100)}
    metrics.registry.register(OpenByService(lambda: open_.items(), 3))
    found = samples(metrics)
    name = "handoff_edge_service_connections_open"
    assert {
        dict(labels)["service"]: value for (of, labels), value in found.items() if of == name
    } == {"s99": 100, "s98": 99, "s97": 98, "other": sum(range(1, 98))}


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 9)), max_size=30))
def test_totals_of_services_are_bounded_and_never_go_down(counted: list[tuple[str, int]]) -> None:
    metrics = Metrics(new_registry(), services=3)
    name = "handoff_edge_service_body_bytes_total"
    before: dict[str, float] = {}
    for service, count in counted:
        metrics.services.of(service).body[0] += count
        found = {
            dict(labels)["service"]: value
            for (of, labels), value in samples(metrics).items()
            if of == name and dict(labels)["direction"] == "from_client"
        }
        assert len(found) <= 4
        assert all(found[service] >= value for service, value in before.items())
        before = found
    assert sum(before.values()) == sum(count for _, count in counted)
