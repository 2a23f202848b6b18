"""The variables that steer the tests, kept apart from the ones that services read.

A service refuses to start on a HANDOFF_… variable that it does not know, and most tests hand their
own environment on. So a run hides these at its start, under a name that no service looks at.
"""

import os

NAMES = ("HANDOFF_TEST_KAFKA", "HANDOFF_TEST_POSTGRES", "HANDOFF_TEST_PARTS", "HANDOFF_CACHE")


def value(name: str) -> str | None:
    """The variable's value, hidden or not; None when it is not set or empty."""
    assert name in NAMES
    return os.environ.get(name) or os.environ.get(f"_{name}") or None


def hide() -> None:
    """Once, before the run's first test."""
    for name in NAMES:
        if name in os.environ:
            os.environ[f"_{name}"] = os.environ.pop(name)
