"""What holds an invoice open: each reason by itself, and none at a clean cut."""

from dataclasses import replace
from typing import Any

import pytest

from handoff_billing.holds import Cut, Progress, RowVersion, cut_of, holds
from handoff_common.minutes import HOUR_MS
from support.billing_values import NOVEMBER, OCTOBER

GRACE_MS = 24 * HOUR_MS


def said(**changes: Any) -> list[Progress]:
    """Two slices in two usage partitions, past the month's end; `changes` to slice 1 in 1."""
    every = [
        Progress(slice_, partition, 2, 1, 5, 100, NOVEMBER, 0, {}, 0)
        for slice_ in range(2)
        for partition in range(2)
    ]
    return [*every[:-1], every[-1]._replace(**changes)]


def codes(**changes: Any) -> list[str]:
    arguments: dict[str, Any] = {
        "customer_id": "mine",
        "month_ms": OCTOBER,
        "now_ms": NOVEMBER + GRACE_MS,
        "grace_ms": GRACE_MS,
        "partitions": 2,
        "progress": said(),
        "rows": [RowVersion(0, 1, 99), RowVersion(1, 1, 42)],
        "unreadable": {},
    }
    return [hold.code for hold in holds(**arguments | changes)]


def test_a_clean_cut_holds_nothing() -> None:
    assert codes() == []
    assert codes(rows=[]) == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"now_ms": NOVEMBER - 1}, "month_open"),
        ({"now_ms": NOVEMBER}, "grace"),
        ({"now_ms": NOVEMBER + GRACE_MS - 1}, "grace"),
        ({"progress": []}, "no_progress"),
        ({"progress": said()[:3]}, "progress_missing"),
        ({"partitions": 3}, "progress_missing"),
        ({"progress": said(slices=3)}, "progress_missing"),
        ({"progress": said(through_ms=NOVEMBER - 1)}, "progress_behind"),
        ({"progress": said(generation=2), "rows": []}, "generations_differ"),
        ({"rows": [RowVersion(0, 2, 1)]}, "rows_of_another_generation"),
        ({"rows": [RowVersion(1, 1, 100)]}, "rows_beyond_progress"),
        ({"progress": said(position=42)}, "rows_beyond_progress"),
        ({"progress": said(open_orphans=1, revision=6)}, "open_orphans"),
        ({"progress": said(parked={"mine": 1}, revision=6)}, "parked"),
        ({"progress": said(parked={"": 1}, revision=6)}, "parked"),
        ({"progress": said(difference=1, revision=6)}, "difference"),
        ({"unreadable": {"mine": 1}}, "usage_unreadable"),
        ({"unreadable": {None: 1}}, "usage_unreadable"),
    ],
)
def test_each_reason_has_its_code(changes: dict[str, Any], code: str) -> None:
    assert set(codes(**changes)) == {code}


def test_others_troubles_do_not_hold() -> None:
    assert codes(progress=said(parked={"theirs": 3}, revision=6)) == []
    assert codes(unreadable={"theirs": 3}) == []


def test_what_was_once_said_and_is_over_does_not_hold() -> None:
    before = [one._replace(open_orphans=2, revision=4) for one in said()[2:3]]
    assert codes(progress=[*said()[:2], *before, said()[3]]) == []


def test_rows_that_a_rebuild_left_empty_do_not_hold() -> None:
    later = [one._replace(generation=2) for one in said()]
    assert codes(progress=later, rows=[RowVersion(0, 2, 1), RowVersion(0, 1, 1, True)]) == []
    old = [RowVersion(0, 1, 1, False)]
    assert codes(progress=later, rows=old) == ["rows_of_another_generation"]
    assert codes(rows=[RowVersion(0, 2, 1, True)]) == ["rows_of_another_generation"]


def test_every_reason_is_listed_at_once() -> None:
    found = codes(
        now_ms=NOVEMBER,
        progress=said(open_orphans=1, difference=2, through_ms=OCTOBER, revision=6),
        rows=[RowVersion(1, 1, 100)],
    )
    assert found == [
        "grace",
        "progress_behind",
        "rows_beyond_progress",
        "open_orphans",
        "difference",
    ]


def test_an_open_month_cannot_be_forced() -> None:
    arguments: dict[str, Any] = {
        "customer_id": "mine",
        "month_ms": OCTOBER,
        "now_ms": OCTOBER,
        "grace_ms": 0,
        "partitions": 2,
        "progress": [],
        "rows": [],
        "unreadable": {},
    }
    assert [(hold.code, hold.forceable) for hold in holds(**arguments)] == [
        ("month_open", False),
        ("no_progress", True),
    ]


def test_a_cut_is_the_least_that_was_said() -> None:
    cut = cut_of([*said(position=90, through_ms=NOVEMBER + 5)])
    assert cut == Cut({0: 100, 1: 90}, {0: NOVEMBER, 1: NOVEMBER})
    assert replace(cut_of([])) == Cut()


def test_long_lists_are_cut_short() -> None:
    [detail] = [
        hold.detail
        for hold in holds(
            customer_id="mine",
            month_ms=OCTOBER,
            now_ms=NOVEMBER,
            grace_ms=0,
            partitions=24,
            progress=[Progress(0, 0, 1, 1, 1, 1, NOVEMBER)],
            rows=[],
            unreadable={},
        )
    ]
    assert detail.endswith("1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …")


def test_rows_of_a_corrected_month_must_lie_before_the_cut_too() -> None:
    arguments: dict[str, Any] = {"corrected": {OCTOBER - 31 * 24 * HOUR_MS: [RowVersion(0, 1, 99)]}}
    assert codes(**arguments) == []
    arguments = {"corrected": {OCTOBER - 30 * 24 * HOUR_MS: [RowVersion(0, 1, 100)]}}
    assert codes(**arguments) == ["rows_beyond_progress"]
    arguments = {"corrected": {OCTOBER - 30 * 24 * HOUR_MS: [RowVersion(0, 2, 9)]}}
    assert codes(**arguments) == ["rows_of_another_generation"]
