"""The console's settings."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from handoff_common.settings import Settings


class ConsoleSettings(Settings):
    """Read from HANDOFF_*; see docs/operations.md."""

    data_dir: Path = Field(
        Path("handoff-data"),
        description="folder of the key that signs cookies, where HANDOFF_CONSOLE_SECRET is not set",
    )
    console_secret: SecretStr = Field(
        SecretStr(""),
        description="signs the session cookies, 32 characters or more, the same for every pod; "
        "empty: a key is made at the first start and kept in HANDOFF_DATA_DIR",
    )
    console_url: Annotated[str, Field(pattern=r"^(https?://[^/\s]+)?$")] = Field(
        "",
        description="address in people's browsers, as https://console.example.com; where it is "
        "https, cookies are for TLS only. Empty: plain HTTP on any name",
    )
    console_edge_url: Annotated[str, Field(pattern=r"^(wss?://[^/\s]+)?$")] = Field(
        "",
        description="address of the edge, shown to people who want to try a service; may be empty",
    )
    console_refresh: Annotated[float, Field(ge=0.5, le=60)] = Field(
        2.0, description="seconds between two updates of a live page; 0.5 to 60"
    )
    console_live_pages: Annotated[int, Field(ge=1, le=10_000)] = Field(
        500, description="live pages that are served at once, 20 of them to one user; 1 to 10000"
    )


class ConsoleProcess(Settings):
    """Where the console finds the APIs, and is found, as a process of its own."""

    console_host: str = Field("127.0.0.1", description="address of the web interface")
    console_port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        8004, description="port of the web interface; 0 takes a free one"
    )
    console_api_url: Annotated[str, Field(pattern=r"^https?://[^/\s]+$")] = Field(
        "http://127.0.0.1:8000", description="address of the gateway before the REST APIs"
    )
