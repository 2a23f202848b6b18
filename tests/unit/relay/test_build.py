"""Where the native relay can be built, it is, and is the one in use."""

import os
import sys

import pytest

from handoff_relay import IMPLEMENTATIONS, active, load, load_tls


def test_what_was_built_is_used() -> None:
    if os.environ.get("HANDOFF_RELAY_NATIVE") == "0" or sys.platform != "linux":
        # `make test` gets cargo where it is missing, so nothing else is a reason.
        pytest.skip("the native relay is not wanted, or not for this system")
    assert active == "native"
    assert set(IMPLEMENTATIONS) == {"native", "python"}


def test_the_active_relay_is_the_first() -> None:
    assert load() is IMPLEMENTATIONS[active].relay
    assert load_tls() is IMPLEMENTATIONS[active].tls
