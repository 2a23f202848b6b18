"""What clients saw against what was billed: each difference has its name, and no other has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handoff_common.minutes import HOUR_MS, owed
from handoff_standalone.reconcile import (
    Held,
    Recorded,
    Report,
    Sums,
    Window,
    Witness,
    match,
    reconcile,
    undelivered,
    witness_of,
)

NOW = 10_000_000


def row(number: int, at: int, elapsed: int, reason: str | None = "client_closed") -> Recorded:
    return Recorded(f"c{number}", at, elapsed, owed(elapsed), reason)


def held(witnesses: list[Witness], rows: list[Recorded], **sums: int) -> Report:
    real = [r for r in rows if r.reason != "never_established"]
    given_ = {
        "minutes": sum(r.minutes for r in real),
        "opened": len(real),
        "closed": sum(1 for r in real if r.reason is not None),
    } | sums
    return reconcile(witnesses, rows, Sums(**given_), now_ms=NOW)


lives = st.lists(
    st.tuples(
        st.integers(0, 100_000), st.integers(0, 500), st.integers(0, 500), st.integers(0, 200_000)
    ),
    max_size=60,
)


@given(lives)
def test_what_was_billed_as_it_was_seen_balances(lived: list[tuple[int, int, int, int]]) -> None:
    witnesses, rows = [], []
    for number, (opening, before, after, elapsed) in enumerate(lived):
        accepted = opening + before
        witnesses.append(Witness(opening, accepted + after, accepted + elapsed))
        rows.append(row(number, accepted, elapsed))
    pairs, missed, left = match(witnesses, sorted(rows, key=lambda r: r.accepted_ms))
    assert (len(pairs), missed, left) == (len(rows), [], [])
    assert held(witnesses, rows).balanced


@given(lives, st.data())
def test_a_lost_record_and_a_double_one_are_found(
    lived: list[tuple[int, int, int, int]], data: st.DataObject
) -> None:
    witnesses = [Witness(o, o + b + a, None) for o, b, a, _ in lived]
    rows = sorted(
        (row(n, o + b, NOW - o - b, None) for n, (o, b, _, _) in enumerate(lived)),
        key=lambda r: r.accepted_ms,
    )
    assert held(witnesses, rows).balanced
    if rows:
        chosen = data.draw(st.sampled_from(rows))
        without = [r for r in rows if r is not chosen]
        assert [d.code for d in held(witnesses, without).differences] == ["not_recorded"]
        twice = sorted([*rows, chosen], key=lambda r: r.accepted_ms)
        assert [d.code for d in held(witnesses, twice).differences] == ["not_seen"]


def test_each_difference_has_its_name() -> None:
    one = Witness(1_000, 1_010, 121_000)
    assert held([one], [row(1, 1_005, 119_995)]).balanced

    def codes(rows: list[Recorded], **sums: int) -> list[str]:
        return [d.code for d in held([one], rows, **sums).differences]

    assert codes([row(1, 1_005, 150_000)]) == ["billed_too_long"]
    assert codes([row(1, 1_005, 60_000)]) == ["billed_too_short"]
    assert codes([row(1, 1_005, 119_995, None)]) == ["not_closed"]
    assert codes([row(1, 1_005, 119_995)._replace(minutes=9)]) == ["wrong_minutes"]
    assert codes([row(1, 1_005, 119_995)], minutes=3) == ["usage_minutes"]
    assert codes([row(1, 1_005, 119_995)], opened=2) == ["usage_opened"]
    assert codes([row(1, 1_005, 119_995)], closed=0) == ["usage_closed"]
    assert codes([row(1, 1_005, 119_995)], billed_minutes=3) == ["billed_minutes"]


def test_what_an_outage_of_ours_leaves_unbilled_is_explained() -> None:
    report = held([Witness(1_000, 1_010, 121_000)], [row(1, 1_005, 60_000, "edge_crashed")])
    assert report.balanced
    assert [d.code for d in report.explained] == ["billed_too_short"]
    assert report.unbilled_ms == 121_000 - 1_010 - 1_000 - 60_000
    too_long = held([Witness(1_000, 1_010, 121_000)], [row(1, 1_005, 130_000, "edge_crashed")])
    assert [d.code for d in too_long.differences] == ["billed_too_long"]


def test_an_edge_that_died_before_the_101_is_explained_by_the_refused_client() -> None:
    died = row(1, 1_005, 0, "edge_crashed")
    report = held([Witness(1_000, None, None)], [died])
    assert report.balanced and [d.code for d in report.explained] == ["not_seen"]
    assert [d.code for d in held([], [died]).differences] == ["not_seen"]
    refused = held([Witness(1_000, None, None)], [row(1, 1_005, 0)])
    assert [d.code for d in refused.differences] == ["not_seen"]


def test_what_was_never_established_is_owed_nothing_and_is_no_difference() -> None:
    assert held([], [row(1, 1_005, 0, "never_established")]).balanced


def test_a_window_counts_what_starts_in_it_and_asks_for_no_more() -> None:
    hour = Window(HOUR_MS, 2 * HOUR_MS)
    before = row(1, HOUR_MS - 90_000, 200_000)  # of four minutes the first two lie outside
    inside = row(2, HOUR_MS + 5_000, 60_000)
    across = row(3, 2 * HOUR_MS - 60_000, 150_000)  # of three the last two lie outside
    witnesses = [
        Witness(r.accepted_ms, r.accepted_ms, r.accepted_ms + r.elapsed_ms)
        for r in (before, inside, across)
    ]
    sums = Sums(2 + 1 + 1, opened=2, closed=2, billed_minutes=4)

    def codes(seen: list[Witness], rows: list[Recorded], sums: Sums = sums) -> list[str]:
        report = reconcile(seen, rows, sums, now_ms=3 * HOUR_MS, window=hour)
        return [d.code for d in report.differences]

    rows = [before, inside, across]
    assert codes(witnesses, rows) == []
    assert codes(witnesses[1:], rows) == [], "who came before the window needs no witness"
    assert codes(witnesses[:1], rows) == ["not_seen", "not_seen"]
    assert codes(witnesses, [before, across], Sums(3, 1, 1, 3)) == ["not_recorded"]
    outside = Witness(2 * HOUR_MS + 1, 2 * HOUR_MS + 2, None)
    assert codes([*witnesses, outside], rows) == []
    assert codes(witnesses, rows, sums._replace(minutes=5)) == ["usage_minutes"]


def test_minutes_that_came_after_the_invoice_are_explained() -> None:
    one = Witness(1_000, 1_010, 121_000)
    rows = [row(1, 1_005, 119_995)]
    report = reconcile([one], rows, Sums(2, 1, 1, 1, late_minutes=1), now_ms=NOW)
    assert report.balanced and [d.code for d in report.explained] == ["late_minutes"]
    report = reconcile([one], rows, Sums(2, 1, 1, 1), now_ms=NOW)
    assert [d.code for d in report.differences] == ["billed_minutes"]


def test_what_a_journal_holds_must_be_known() -> None:
    rows = [
        row(1, 0, 10_000, None),
        row(2, 0, 10_000),
        row(3, 0, 10_000, "edge_lost"),
        row(4, 0, 10_000, None),
        row(5, 0, 10_000, None),
    ]
    report = Report(0, 0)
    undelivered(
        report,
        [
            Held("c1", 0, 10_000, False),
            Held("c2", 0, 10_000, True),
            Held("c3", 0, 9_000, False),
            Held("c4", 0, 10_001, False),
            Held("c5", 0, 10_000, True),
            Held("c6", 0, 0, False),
        ],
        rows,
    )
    found = [(d.code, d.connection_id) for d in report.differences]
    assert found == [("not_delivered", name) for name in ("c4", "c5", "c6")]
    assert [(d.code, d.connection_id) for d in report.explained] == [("held_open", "c3")]
    assert report.held == 6


def test_a_line_of_a_witness_file_says_what_is_wrong_with_it() -> None:
    good = {"opening_ns": 1_000_000, "opened_ns": 2_000_001, "ended_ns": 0, "refused": False}
    assert witness_of(good) == Witness(1, 3, None)
    assert witness_of({"opening_ns": 1_999_999, "refused": True}) == Witness(1, None, None)
    for wrong, text in (
        ({"opening_ns": "soon"}, "opening_ns: 'soon'; allowed: nanoseconds"),
        ({"opened_ns": 1.5}, "opened_ns: 1.5"),
        ({"ended_ns": None}, "ended_ns: is missing"),
        ({"opened_ns": 999}, "opened_ns: 999 lies before opening_ns"),
    ):
        with pytest.raises(ValueError, match=text):
            witness_of(good | wrong)
