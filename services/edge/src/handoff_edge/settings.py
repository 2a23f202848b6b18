"""The edge's settings. Durations are seconds."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from handoff_common.settings import Settings
from handoff_edge.addresses import Network

Region = Literal[
    "usa",
    "europe",
    "asia",
    "asia_india",
    "asia_southkorea",
    "anzac",
    "latam",
    "southamerica_std",
    "mexico",
    "africa_std",
    "saudi_arabia",
]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]
PositiveSeconds = Annotated[float, Field(gt=0, le=86_400)]


class EdgeSettings(Settings):
    """Read from HANDOFF_*; see docs/operations."""

    data_dir: Path = Field(
        Path("handoff-data"), description="folder of the journal and the saved rule book"
    )
    log: str = Field(
        "",
        description="kafka://host:port[,host:port], or sqlite:///path; "
        "empty: log.db in HANDOFF_DATA_DIR",
    )
    topic_replication: Annotated[int, Field(ge=1, le=9)] = Field(
        3, description="copies that Kafka must keep of each partition; 3 or more in production"
    )
    edge_workers: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="processes that share the port, each with a journal; needs Kafka beyond 1"
    )
    region: Region = Field("europe", description="billing region of this edge")
    pop: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,32}$")] = Field(
        "local", description="place of this edge: letters, digits, . _ -"
    )
    edge_host: str = Field("0.0.0.0", description="address that clients connect to")  # noqa: S104
    edge_port: Port = Field(8080, description="port that clients connect to; 0 takes a free one")
    edge_tls_port: Port = Field(
        8443, description="the same with TLS, where there are certificates; 0 takes a free one"
    )
    tls_certificates: Path | None = Field(
        None,
        description="folder of the certificates that clients are served with: NAME.crt or "
        "NAME.pem, and NAME.key, in it or one folder below; none: no TLS port",
    )
    tls_interval: PositiveSeconds = Field(
        10.0, description="between two looks whether the certificates have changed"
    )
    edge_admin_host: str = Field("127.0.0.1", description="address of health and metrics")
    edge_admin_port: Port = Field(8081, description="port of health and metrics")
    allow_private_origins: bool = Field(
        False, description="true: origins may have private, loopback and other local addresses"
    )
    own_addresses: str = Field(
        "", description="addresses and networks of the edges, comma-separated; never dialled"
    )
    proxy_protocol_from: str = Field(
        "",
        description="networks of the load balancers before this edge, comma-separated; their "
        "connections must begin with a PROXY protocol header (v1 or v2), others must not",
    )
    extra_ca: Path | None = Field(
        None, description="PEM file with a private CA that origins may use besides the public ones"
    )
    relay: Literal["auto", "native", "python"] = Field(
        "auto", description="what moves the bytes; auto: the native one where it was built"
    )
    head_timeout: PositiveSeconds = Field(10.0, description="for a client to send its whole head")
    connect_timeout: PositiveSeconds = Field(
        5.0, description="to look up and connect to an origin, and again for its TLS handshake"
    )
    answer_timeout: PositiveSeconds = Field(10.0, description="for an origin's whole answer head")
    journal_timeout: PositiveSeconds = Field(
        5.0, description="for an append to the journal; beyond it new handoffs are refused"
    )
    edge_journal: Path | None = Field(
        None, description="folder of a worker's journal; the node sets it for its workers"
    )
    edge_admin_socket: Path | None = Field(
        None, description="Unix socket of a worker's admin port; the node sets it for its workers"
    )
    journal_max_bytes: Annotated[int, Field(ge=1_048_576)] = Field(
        4_294_967_296,
        description="that the journal may hold while Kafka is away; beyond it new handoffs are "
        "refused with 503",
    )
    forward_timeout: PositiveSeconds = Field(
        10.0, description="at a stop: for Kafka to acknowledge what the journal holds"
    )
    max_heads: Annotated[int, Field(ge=1)] = Field(
        16_384, description="clients whose head is not whole, in each worker"
    )
    max_heads_per_network: Annotated[int, Field(ge=1)] = Field(
        4_096, description="the same, per client network (/24, /48)"
    )
    max_handshakes: Annotated[int, Field(ge=1)] = Field(
        16_384,
        description="handshakes under way in each worker, four fifths of them one service's at "
        "most; beyond it 503 `busy`",
    )
    checkpoint_interval: Annotated[int, Field(ge=1, le=60)] = Field(
        60, description="between two checkpoints of a connection whose counters change"
    )
    watermark_interval: PositiveSeconds = Field(10.0, description="between two watermarks")
    metrics_services: Annotated[int, Field(ge=0, le=1_000)] = Field(
        50,
        description="services with a label of their own in the metrics: those with the most open "
        "connections, and in totals those that came first; the others are one sum",
    )
    refusals_interval: PositiveSeconds = Field(
        3.0, description="between two reports of what was refused, where anything was"
    )
    drain_grace: Seconds = Field(
        15.0, description="at a stop: for connections to end by themselves"
    )
    drain_spread: Seconds = Field(
        3.0, description="at a stop: over which the others are ended, with 1001"
    )
    close_grace: PositiveSeconds = Field(
        5.0, description="for both peers to finish after a Close frame of the edge"
    )
    disable_grace: Seconds = Field(
        5.0,
        description="over which connections are ended that a change of configuration ends: of a "
        "disabled service, with 1001; of a contract, with 1008; of a hard cap, with 1013",
    )
    contract_grace: Seconds = Field(
        3600.0, description="after a contract's end, before open connections are ended, with 1008"
    )

    @field_validator("log")
    @classmethod
    def _url(cls, value: str) -> str:
        if value and not value.startswith(("sqlite:///", "kafka://")):
            raise ValueError("takes kafka://host:port[,host:port] or sqlite:///path")
        return value

    @field_validator("own_addresses", "proxy_protocol_from")
    @classmethod
    def _networks(cls, value: str) -> str:
        networks_of(value)
        return value

    @property
    def log_path(self) -> Path:
        """The file of the embedded log, which is the journal too."""
        assert not self.log.startswith("kafka://"), "Kafka is no file"
        return Path(self.log.removeprefix("sqlite:///")) if self.log else self.data_dir / "log.db"

    @property
    def own_networks(self) -> tuple[Network, ...]:
        return networks_of(self.own_addresses)

    @property
    def proxy_networks(self) -> tuple[Network, ...]:
        return networks_of(self.proxy_protocol_from)


def networks_of(value: str) -> tuple[Network, ...]:
    """Addresses and networks, comma-separated. Raises ValueError."""
    parts = filter(None, (item.strip() for item in value.split(",")))
    return tuple(ipaddress.ip_network(part) for part in parts)
