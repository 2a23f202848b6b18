"""What was typed becomes what the API takes; what a draft changes is named."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from handoff_client.products import Violation
from handoff_client.services import VersionDetail
from handoff_console.context import Refused
from handoff_console.differences import Change, FieldChange, differences
from handoff_console.pages.websockets import connections_of, repair_of
from handoff_console.part_forms import (
    BACKEND,
    BACKEND_OTHERS,
    RULE,
    NotANumber,
    typed_text,
    untouched,
    values,
)

WHEN = datetime(2026, 11, 1, tzinfo=UTC)


def typed(form: dict[str, str]) -> Any:
    return form.get


def test_texts_numbers_and_flags() -> None:
    form = {"name": "east", "port": "443", "use_ssl": "1", "use_ssl.there": "1", "comment": ""}
    assert values(BACKEND, typed(form)) == {
        "name": "east",
        "port": 443,
        "use_ssl": True,
        "comment": None,
    }


def test_a_box_that_is_not_checked_is_no_and_one_that_was_not_there_is_left_out() -> None:
    assert values(BACKEND, typed({"use_ssl.there": "1"})) == {"use_ssl": False}
    assert values(BACKEND, typed({"use_ssl": "1"})) == {}


@pytest.mark.parametrize("text", ["80.0", "1e3", "٣", "0x10", "9" * 19, "-", "--1"])
def test_what_is_no_whole_number_is_named(text: str) -> None:
    with pytest.raises(NotANumber) as caught:
        values(BACKEND, typed({"port": text}))
    assert caught.value.field.name == "port" and text in str(caught.value)


def test_every_setting_of_a_backend_has_a_field() -> None:
    names = [field.name for field in BACKEND + BACKEND_OTHERS]
    assert len(names) == len(set(names))
    kinds = {field.name: field.kind for field in BACKEND_OTHERS}
    assert kinds["max_conn"] == "number" and kinds["ssl_check_cert"] == "choice"
    assert kinds["shield"] == "text" and kinds["ssl_client_key"] == "lines"
    assert {field.name for field in RULE} >= {"backend", "priority", "path_prefix"}


def test_a_text_that_nobody_has_changed_stays_to_the_last_line_end() -> None:
    held = {"ssl_ca_cert": "-----BEGIN\r\nabc\n-----END\n", "comment": " old ", "port": 80}
    sent = typed_text("-----BEGIN\r\nabc\r\n-----END\r\n")
    assert sent == "-----BEGIN\nabc\n-----END"
    given = {"ssl_ca_cert": sent, "comment": "new", "port": 443, "shield": None}
    assert untouched(given, held) == given | {"ssl_ca_cert": held["ssl_ca_cert"]}
    assert untouched({"ssl_ca_cert": "-----BEGIN"}, held) == {"ssl_ca_cert": "-----BEGIN"}
    assert untouched(given, {}) == given


def version(number: int, **parts: list[dict[str, Any]]) -> VersionDetail:
    stamps = {"service_id": "s", "version": number, "created_at": WHEN, "updated_at": WHEN}
    return msgspec.convert(
        {
            "number": number,
            "service_id": "s",
            "comment": "",
            "active": False,
            "locked": False,
            "created_at": WHEN,
            "updated_at": WHEN,
            "domains": [],
            "backends": [],
            "directors": [],
            "websocket_rules": [],
        }
        | {name: [stamps | part for part in given] for name, given in parts.items()},
        VersionDetail,
    )


def test_differences_name_what_came_went_and_changed() -> None:
    before = version(
        1, domains=[{"name": "a.example", "comment": ""}, {"name": "b.example", "comment": "x"}]
    )
    after = version(
        2, domains=[{"name": "b.example", "comment": ""}, {"name": "c.example", "comment": ""}]
    )
    assert differences(before, after) == [
        Change("removed", "domain", "a.example", ()),
        Change("changed", "domain", "b.example", (FieldChange("comment", "x", ""),)),
        Change("added", "domain", "c.example", ()),
    ]
    assert (
        differences(
            before,
            version(
                3,
                domains=[
                    *[{"name": "a.example", "comment": ""}, {"name": "b.example", "comment": "x"}]
                ],
            ),
        )
        == []
    )
    assert [change.kind for change in differences(None, after)] == ["added", "added"]


@pytest.mark.parametrize(
    ("object_", "place"),
    [
        ("backend", "/services/s/versions/{draft}/backends/a%20b#field-max_conn"),
        ("websocket-rule", "/services/s/versions/{draft}/rules/a%20b#field-max_conn"),
        ("director", "/services/s/versions/{draft}#directors"),
        ("product", None),
    ],
)
def test_each_violation_leads_to_where_it_is_mended(object_: str, place: str | None) -> None:
    violation = Violation(
        object=object_, name="a b", field="max_conn", value=300, allowed="200", reason="no"
    )
    assert repair_of("s", violation).in_version == place


@pytest.mark.parametrize(
    ("text", "count"),
    [(None, 100), ("", 100), ("0", 0), (" 7 ", 7), ("100000000", 100_000_000)],
)
def test_the_preview_takes_only_counts(text: str | None, count: int) -> None:
    assert connections_of(text) == count


@pytest.mark.parametrize("text", ["1,000", "1.5", "-1", "many", "٣", "100000001", "9" * 13])
def test_what_is_no_count_is_refused_and_not_replaced(text: str) -> None:
    with pytest.raises(Refused) as caught:
        connections_of(text)
    assert caught.value.status == 400 and "in digits alone" in caught.value.detail
