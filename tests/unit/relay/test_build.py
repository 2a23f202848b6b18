"""Where the native relay can be built, it is, and is the one in use."""

import os
import shutil

import pytest

from handoff_relay import IMPLEMENTATIONS, active, load, load_tls


def test_what_was_built_is_used() -> None:
    if os.environ.get("HANDOFF_RELAY_NATIVE") == "0" or not shutil.which("cargo"):
        pytest.skip("the native relay is not built here")
    assert active == "native"
    assert set(IMPLEMENTATIONS) == {"native", "python"}


def test_the_active_relay_is_the_first() -> None:
    assert load() is IMPLEMENTATIONS[active].relay
    assert load_tls() is IMPLEMENTATIONS[active].tls
