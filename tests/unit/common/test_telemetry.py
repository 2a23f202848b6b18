"""A log line is one JSON object, whatever is in it."""

import io
import json
import logging

import structlog

from handoff_common.telemetry import configure_logs, get_logger


def test_no_line_is_lost_over_one_of_its_fields() -> None:
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    out = io.StringIO()
    try:
        configure_logs(stream=out)
        logger = get_logger("test")
        logger.info("plain", text="ä\n", count=1)
        logger.info("odd", path="/tmp/\udcff", big=2**70, thing={1, 2}, nothing=None)
    finally:
        structlog.configure(**before)
        root.handlers[:] = handlers
        root.setLevel(level)
    plain, odd = (json.loads(line) for line in out.getvalue().splitlines())
    assert (plain["event"], plain["component"], plain["text"]) == ("plain", "test", "ä\n")
    assert (odd["event"], odd["path"], odd["big"]) == ("odd", "/tmp/\udcff", 2**70)
    assert odd["thing"] == "{1, 2}" and odd["nothing"] is None
