"""The settings of the config service."""

from pathlib import Path

from pydantic import Field

from handoff_common.settings import Settings


class ConfigSettings(Settings):
    """`database_url`, `data_dir` and `log` are the deployment's; the rest is this service's own."""

    database_url: str = Field(
        "sqlite+aiosqlite:///config.db", description="SQLAlchemy URL of this service's database"
    )
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
    log: str = Field(
        "sqlite:///handoff-data/log.db",
        pattern=r"^sqlite:///.+$",
        description="The log that connects the services; sqlite:///path. Only when run by itself",
    )
    config_host: str = Field("127.0.0.1", description="Address of this API, when run by itself")
    config_port: int = Field(
        8_001, ge=0, le=65_535, description="Port of this API, when run by itself; 0 to 65535"
    )

    @property
    def log_path(self) -> Path:
        return Path(self.log.removeprefix("sqlite:///"))
