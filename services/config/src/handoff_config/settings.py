"""The settings of the config service."""

from pathlib import Path

from pydantic import Field

from handoff_common.process import ProcessSettings
from handoff_common.settings import Settings


class ConfigSettings(Settings):
    """Field `sales_contact` is read from `HANDOFF_SALES_CONTACT`, and so on."""

    data_dir: Path = Field(
        Path("handoff-data"), description="Folder where the operator token is written, mode 600"
    )
    sales_contact: str = Field(
        "sales@example.com",
        min_length=1,
        max_length=255,
        description="Named to customers that may not enable a product; text",
    )
    write_limit: int = Field(
        6_000, ge=1, le=1_000_000, description="Writes per token and hour; 1 to 1000000"
    )
    settle_seconds: float = Field(
        2.0,
        ge=0,
        le=30,
        description="How long a change waits until every service knows it; 0 to 30 seconds",
    )
    session_hours: int = Field(
        12, ge=1, le=168, description="How long the token of a sign-in is in force; 1 to 168 hours"
    )


class ConfigProcess(ProcessSettings):
    """Where the service finds its log and database, and is found, as a process of its own."""

    config_host: str = Field("127.0.0.1", description="address of config's API")
    config_port: int = Field(
        8001, ge=0, le=65_535, description="port of config's API; 0 takes a free one"
    )
