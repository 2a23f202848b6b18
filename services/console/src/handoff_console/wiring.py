"""How the console is put together. Opens nothing: that is `on_start`'s business."""

import os
import secrets
from pathlib import Path

import httpx

from handoff_client import AsyncClient, users
from handoff_common.clock import Clock
from handoff_common.errors import SettingError
from handoff_common.service import Service
from handoff_console.app import application, templates
from handoff_console.context import Console
from handoff_console.feeds import Bearer, Feeds
from handoff_console.live import CALL_SECONDS
from handoff_console.settings import ConsoleSettings
from handoff_console.static_files import Files

KEY_FILE = "console-key"
SECRET_LENGTH = 32


def build(
    settings: ConsoleSettings,
    *,
    api_url: str,
    clock: Clock,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Service:
    """transport: how the APIs are reached; HTTP where None is given.

    Raises SettingError for a secret that is too short, and a folder that cannot be written.
    """
    files = Files()
    shared = AsyncClient(api_url, transport=transport, user_agent="handoff-console")

    async def check(bearer: Bearer) -> bool:
        user = await shared.with_token(bearer.token).run(users.current(), timeout=CALL_SECONDS)
        return (user.role, user.customer_id) == (bearer.role, bearer.customer_id)

    feeds = Feeds(
        check, interval=settings.console_refresh, most_viewers=settings.console_live_pages
    )
    console = Console(
        settings=settings,
        client=lambda token, address: shared.with_token(token, forwarded_for=address),
        templates=templates(files),
        clock=clock,
        feeds=feeds,
    )

    async def on_stop() -> None:
        await feeds.stop()
        await shared.aclose()

    return Service(
        name="console",
        app=application(console, files, _secret(settings), tuple),
        on_stop=on_stop,
        end_streams=feeds.stop,
    )


def _secret(settings: ConsoleSettings) -> str:
    given = settings.console_secret.get_secret_value()
    if given:
        if len(given) < SECRET_LENGTH:
            raise SettingError(
                f"HANDOFF_CONSOLE_SECRET = (secret): {len(given)} characters; takes "
                f"{SECRET_LENGTH} or more, as `openssl rand -hex 32` prints"
            )
        return given
    return _kept(settings.data_dir / KEY_FILE)


def _kept(path: Path) -> str:
    """The key of this folder; made where there is none. Whole or not at all, for its owner only."""
    try:
        return path.read_text()
    except FileNotFoundError:
        pass
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(SECRET_LENGTH))
        beside.replace(path)
    except OSError as error:
        raise SettingError(
            f"HANDOFF_DATA_DIR = {str(path.parent)!r}: {error.strerror}; takes a folder that this "
            "process may write in, or set HANDOFF_CONSOLE_SECRET"
        ) from None
    return path.read_text()
