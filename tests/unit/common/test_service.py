"""What asks a process to stop."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from handoff_common.service import stop_signals


@contextmanager
def handled(number: signal.Signals, handler: Any) -> Iterator[None]:
    """As a process that was started so: this one may have been told to ignore a hang-up."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_asks_to_stop(number: signal.Signals) -> None:
    with handled(number, signal.default_int_handler):
        async with stop_signals() as stop:
            os.kill(os.getpid(), number)
            async with asyncio.timeout(5):
                await stop.wait()


async def test_a_hang_up_that_was_to_be_ignored_is_ignored() -> None:
    with handled(signal.SIGHUP, signal.SIG_IGN):
        async with stop_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            async with asyncio.timeout(5):
                await stop.wait()
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
