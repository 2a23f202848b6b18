"""The demo from beginning to end: a private data folder, free ports, exit 0 when all is proved."""

import asyncio
import os
import tempfile
import time
from pathlib import Path

from rich.console import Console

from handoff_common.errors import HandoffError
from handoff_common.service import stop_signals
from handoff_common.telemetry import configure_logs
from handoff_standalone.demo import story
from handoff_standalone.demo.place import place_of, say_where
from handoff_standalone.settings import StandaloneSettings
from handoff_standalone.system import system

_ENVIRON = {
    "HANDOFF_EDGE_HOST": "127.0.0.1",
    "HANDOFF_EDGE_PORT": "0",
    "HANDOFF_EDGE_ADMIN_PORT": "0",
    "HANDOFF_ALLOW_PRIVATE_ORIGINS": "true",
    "HANDOFF_WATERMARK_INTERVAL": "1",
    "HANDOFF_DRAIN_GRACE": "0",
    "HANDOFF_DRAIN_SPREAD": "0.5",
}


async def main(*, keep: bool) -> int:
    """Tell the story; the exit status. With `keep`, stay up until a signal."""
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="handoff-demo-") as folder:
        data = Path(folder)
        with (data / "handoff.log").open("w") as log_file:
            configure_logs(stream=log_file)
            try:
                return await _main(data, console, keep=keep)
            except (HandoffError, TimeoutError, ExceptionGroup) as error:
                console.print(f"[red]the demo failed:[/] {_causes(error)}")
                log_file.flush()
                console.print((data / "handoff.log").read_text()[-2000:], markup=False)
                return 1


async def _main(data: Path, console: Console, *, keep: bool) -> int:
    started = time.monotonic()
    settings = StandaloneSettings(data_dir=data, api_port=0)
    environ = {k: v for k, v in os.environ.items() if not k.startswith("HANDOFF_")} | _ENVIRON
    console.rule("Handoff", align="left")
    console.print("[bold]1. The system[/] starts: edge, config, metering, billing, one log")
    async with (
        stop_signals() as stop,
        story.origin() as origin_port,
        system(settings, environ) as running,
    ):
        place = place_of(running)
        console.print(f"  API {place.api_url}, clients on port {place.edge_port}, data in {data}")
        console.print("[bold]2. A customer[/] is made through the API")
        customer = await story.set_up(place, origin_port, console)
        console.print(
            "[bold]3. Real clients[/] through the edge: chatty, bulk, idle, abrupt, refused"
        )
        witness = await story.traffic(place, customer, console)
        console.print("[bold]4. What was metered[/] is what the clients counted themselves")
        used = await story.compare(place, customer, witness)
        console.print(
            f"  {used['opened']} connections, {used['minutes']} minutes, all closed; "
            f"refused: {sum(witness.refused.values())}, and not billed"
        )
        console.print("[bold]5. A month is closed[/]")
        invoice = await story.close_a_month(place, customer, console)
        story.print_invoice(invoice, console)
        console.print("[bold]6. The invoice is proved[/] from the log alone")
        await story.verify(place, invoice, console)
        console.print(f"[green]done[/] in {time.monotonic() - started:.0f} s")
        if keep:
            console.print("everything is left running, with a few clients; Ctrl-C ends it")
            say_where(place, customer, console)
            await story.go_on(place, stop)
    return 0


def _causes(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_causes(inner) for inner in error.exceptions)
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main(keep=False)))
