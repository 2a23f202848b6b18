"""What stands against WebSockets, in words."""

import pytest

from handoff_client.products import Check, Violation
from handoff_console.violations import hindrances, place_of, standing


def violation(object_: str, name: str = "origin") -> Violation:
    return Violation(
        object=object_, name=name, field="max_conn", value=300, allowed="200", reason="it is 300"
    )


WAF = violation("product", "ngwaf")
BACKEND, RULE, DIRECTOR = (violation(one) for one in ("backend", "websocket-rule", "director"))


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ((), ""),
        ((WAF,), "The next-gen WAF stands against it."),
        ((BACKEND,), "1 setting of draft 2 stands against it."),
        ((BACKEND, RULE), "2 settings of draft 2 stand against it."),
        ((WAF, DIRECTOR), "1 setting of draft 2 and the next-gen WAF stand against it."),
        ((WAF, BACKEND, RULE), "2 settings of draft 2 and the next-gen WAF stand against it."),
    ],
)
def test_the_waf_is_no_setting_of_a_version(found: tuple[Violation, ...], text: str) -> None:
    assert standing(found, "draft 2") == text


def test_a_violation_leads_to_its_field() -> None:
    assert place_of("s", BACKEND) == "/services/s/versions/{draft}/backends/origin#field-max_conn"
    assert place_of("s", DIRECTOR) == "/services/s/versions/{draft}#directors"
    assert place_of("s", WAF) is None


@pytest.mark.parametrize(
    ("lacking", "active", "found"),
    [
        (None, True, ()),
        (None, False, ("no version is active",)),
        ("no contract is in force", True, ("no contract is in force",)),
        ("the account is suspended", False, ("the account is suspended", "no version is active")),
    ],
)
def test_what_keeps_requests_from_being_handed_off(
    lacking: str | None, active: bool, found: tuple[str, ...]
) -> None:
    check = Check(
        service_id="s",
        version=1 if active else None,
        entitled=lacking is None,
        entitlement=lacking,
        enabled=True,
        may_toggle=True,
        compatible=True,
        violations=(),
    )
    assert hindrances(check, active=active) == found
