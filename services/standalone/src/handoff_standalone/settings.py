"""The embedded system's own settings. Each service's settings apply to it too, but for databases
and ports: those follow from the data folder and `HANDOFF_API_PORT`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from handoff_billing.settings import BillingSettings
from handoff_common.settings import Settings
from handoff_config.settings import ConfigSettings
from handoff_edge.settings import EdgeSettings
from handoff_metering.settings import MeteringSettings


class StandaloneSettings(Settings):
    """Read from HANDOFF_*."""

    data_dir: Path = Field(
        Path("handoff-data"), description="folder of the log, the databases and the operator token"
    )
    api_host: str = Field("127.0.0.1", description="address of the REST APIs")
    api_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        8000, description="port of the REST APIs; 0 takes a free one"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe log lines to write"
    )


def every_model() -> tuple[type[Settings], ...]:
    """All models that read the environment in the embedded system."""
    return (StandaloneSettings, EdgeSettings, ConfigSettings, MeteringSettings, BillingSettings)
