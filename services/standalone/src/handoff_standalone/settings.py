"""The embedded system's own settings. Each service's settings apply to it too, but for databases
and ports: those follow from the data folder and `HANDOFF_API_PORT`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from handoff_billing.settings import BillingProcess, BillingSettings
from handoff_common.errors import SettingError
from handoff_common.settings import DatabaseSettings, Settings, shown, unknown, variable
from handoff_config.settings import ConfigProcess, ConfigSettings
from handoff_console.settings import ConsoleProcess, ConsoleSettings
from handoff_edge.settings import EdgeSettings
from handoff_metering.settings import MeteringProcess, MeteringSettings


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


COMMAND_LINE = ("HANDOFF_TOKEN", "HANDOFF_API_URL")
"""What `handoff admin` reads besides."""

_APART = (
    *ConfigProcess.model_fields,
    *MeteringProcess.model_fields,
    *BillingProcess.model_fields,
    *ConsoleProcess.model_fields,
    *DatabaseSettings.model_fields,
    *("log", "topic_replication", "topic_partitions", "edge_workers", "edge_journal"),
    *("journal_max_bytes", "forward_timeout"),
)
"""Settings of services that run as processes of their own: how they find each other and Kafka."""


def every_model() -> tuple[type[Settings], ...]:
    """All models that read the environment in the embedded system."""
    return (
        StandaloneSettings,
        EdgeSettings,
        ConfigSettings,
        MeteringSettings,
        BillingSettings,
        ConsoleSettings,
    )


def check_names(environ: Mapping[str, str]) -> None:
    """Raises SettingError for each variable that would have no effect: a name that no setting has,
    or one that only services apart from each other have."""
    apart = {variable(field) for field in _APART}
    found = [
        f"{name} is set, but is for services that run apart: the embedded system's log and "
        "databases lie in HANDOFF_DATA_DIR; unset it"
        for name in sorted(apart & environ.keys())
    ]
    found += [
        f"{name}: no setting has this name; is it misspelt? docs/operations.md lists them"
        for name in unknown(every_model(), environ)
        if name not in apart and name not in COMMAND_LINE
    ]
    if found:
        raise SettingError("\n".join(found))


def shown_here(settings: Settings) -> dict[str, str]:
    """`shown`, without what has no effect in the embedded system."""
    apart = {variable(field) for field in _APART}
    return {name: value for name, value in shown(settings).items() if name not in apart}
