"""The settings of the metering service."""

from typing import Annotated

from pydantic import Field

from handoff_common.process import ProcessSettings
from handoff_common.settings import Settings

KEEP_MONTHS = 13


class MeteringSettings(Settings):
    """Field `tick_seconds` is read from `HANDOFF_TICK_SECONDS`, and so on."""

    tick_seconds: Annotated[
        float,
        Field(gt=0, le=60, description="seconds between two ticks of the orphan closer; up to 60"),
    ] = 10.0
    ticks_until_lost: Annotated[
        int,
        Field(
            ge=2,
            le=10_000,
            description="ticks in a row without a watermark until an edge is lost; 2 to 10000",
        ),
    ] = 90
    metering_batch: Annotated[
        int,
        Field(ge=1, le=20_000, description="events folded per transaction; 1 to 20000"),
    ] = 2_000
    metering_keep_months: Annotated[
        int,
        Field(
            ge=2,
            le=120,
            description="months for which closed connections and their events are kept; 2 to 120",
        ),
    ] = KEEP_MONTHS
    metering_max_lag: Annotated[
        int,
        Field(ge=0, description="records a partition may lag before metering is not ready"),
    ] = 100_000


class MeteringProcess(ProcessSettings):
    """Where the service finds its log and database, and is found, as a process of its own."""

    metering_host: str = Field("127.0.0.1", description="address of metering's API")
    metering_port: int = Field(
        8002, ge=0, le=65_535, description="port of metering's API; 0 takes a free one"
    )
