"""`handoff up --example`: a system that stays, and has something to look at from its first start.

In a new data folder it makes what the demo makes: a customer with a user of each role, a service, a
month with its final invoice. While the system runs, a few clients come and go. What was made is
kept in `example.json`, so that the next start goes on with it. A folder with data of its own is
left as it is.
"""

import asyncio
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console

from handoff_common.errors import HandoffError
from handoff_common.service import listen, stop_signals
from handoff_standalone import system
from handoff_standalone.demo import story
from handoff_standalone.demo.place import Customer, Place, place_of, say_where
from handoff_standalone.settings import StandaloneSettings

FILE: Final = "example.json"
_ORIGIN_PORT: Final = 9000
_DEFAULTS: Final = {
    # The example's origin is at a loopback address, and who lets the edge dial such addresses
    # should not be reached from elsewhere.
    "HANDOFF_EDGE_HOST": "127.0.0.1",
    "HANDOFF_ALLOW_PRIVATE_ORIGINS": "true",
}


class Kept(msgspec.Struct, frozen=True):
    """What `example.json` holds. customer: None while it is being made, or was never finished."""

    origin_port: int
    customer: Customer | None = None


async def serve(settings: StandaloneSettings, environ: Mapping[str, str]) -> int:
    """As `system.serve`, with the example in it where the folder is new or has it already."""
    console = Console(highlight=False, soft_wrap=True)
    environ = {**_DEFAULTS, **environ}
    file = settings.data_dir / FILE
    new = not (settings.data_dir / "log.db").exists()
    kept = None if new else _read(file)
    if kept is None and not new:
        console.print(f"{settings.data_dir} has data of its own: no example is added to it")
        return await system.serve(settings, environ)
    if kept is not None and kept.customer is None:
        console.print(
            f"the example in {settings.data_dir} was never finished; a new data folder gets another"
        )
        return await system.serve(settings, environ)
    async with AsyncExitStack() as stack:
        stop = await stack.enter_async_context(stop_signals())
        origin_port = await _origin(stack, kept, console)
        running = await stack.enter_async_context(system.system(settings, environ))
        showing = asyncio.create_task(
            _show(place_of(running), file, kept, origin_port, stop, console)
        )
        try:
            await system.until(stop, running)
        finally:
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)
    return 0


async def _origin(stack: AsyncExitStack, kept: Kept | None, console: Console) -> int | None:
    """Start the origin where the example's backend has it. None where that port is taken."""
    if kept is None:
        port = _ORIGIN_PORT if _is_free(_ORIGIN_PORT) else 0
    elif _is_free(kept.origin_port):
        port = kept.origin_port
    else:
        console.print(f"port {kept.origin_port}, the example's origin, is taken: no clients come")
        return None
    return await stack.enter_async_context(story.origin(port))


def _is_free(port: int) -> bool:
    try:
        listen("127.0.0.1", port).close()
    except OSError:
        return False
    return True


async def _show(
    place: Place,
    file: Path,
    kept: Kept | None,
    origin_port: int | None,
    stop: asyncio.Event,
    console: Console,
) -> None:
    """Make the example where it is not there, say where it is, and keep clients coming."""
    try:
        customer = kept.customer if kept is not None else None
        if customer is None:
            assert origin_port is not None
            customer = await _make(place, file, origin_port)
        say_where(place, customer, console)
        if origin_port is not None:
            await story.go_on(place, stop)
    except (HandoffError, TimeoutError, ExceptionGroup, OSError) as error:
        # The system is somebody's by now, and goes on.
        console.print(f"the example has ended: {type(error).__name__}: {error}", markup=False)


async def _make(place: Place, file: Path, origin_port: int) -> Customer:
    _write(file, Kept(origin_port))
    silent = Console(quiet=True)
    customer = await story.set_up(place, origin_port, silent)
    await story.close_a_month(place, customer, silent)
    _write(file, Kept(origin_port, customer))
    return customer


def _read(file: Path) -> Kept | None:
    """None where there is none."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Kept)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise HandoffError(f"{file}: {error}; take it away to go on without the example") from None


def _write(file: Path, kept: Kept) -> None:
    """Whole or not at all, and for its owner only: a password and tokens are in it."""
    beside = file.with_suffix(".new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(msgspec.json.encode(kept))
    beside.replace(file)
