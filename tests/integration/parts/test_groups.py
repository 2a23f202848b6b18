"""Tests of one group run in one process."""

import pytest


@pytest.mark.xdist_group("of-this-test")
def test_a_group_is_known_by_its_name(request: pytest.FixtureRequest) -> None:
    """Where the name is missing, the group's tests are spread over all processes, and nobody says
    so: each then starts the system that they were to share."""
    if not hasattr(request.config, "workerinput"):
        pytest.skip("there is one process")
    assert request.node.nodeid.endswith("@of-this-test")
