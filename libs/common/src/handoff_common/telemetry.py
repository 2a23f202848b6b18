"""Structured logs and metrics. Nothing is configured at import: `configure_logs` is called once by
a program's `main`."""

import json
import logging
import sys
from typing import Any, TextIO

import msgspec
import structlog
from prometheus_client import CollectorRegistry


def configure_logs(*, level: str = "info", stream: TextIO | None = None) -> None:
    """One JSON object per line with `time`, `level`, `event` and the fields of the call; libraries'
    own log lines take the same form."""
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
    ]
    out = stream or sys.stderr
    renderer = structlog.processors.JSONRenderer(_json)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_number(level)),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(_number(level), logging.WARNING))


def _json(event: Any, **_: Any) -> str:
    # What has no JSON is shown all the same: a line must not be lost over one of its fields.
    try:
        return msgspec.json.encode(event, enc_hook=repr).decode()
    except (TypeError, ValueError, OverflowError):
        # Surrogates and numbers that fit no machine word, which the slower one takes.
        return json.dumps(event, default=repr, separators=(",", ":"))


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def get_logger(name: str) -> Any:
    """A logger that bears `component=name` in every line."""
    return structlog.get_logger(component=name)


def new_registry() -> CollectorRegistry:
    """Metrics of one service. Services that share a process do not share a registry."""
    return CollectorRegistry(auto_describe=True)
