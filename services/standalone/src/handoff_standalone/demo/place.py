"""Where a running system is, and whom the demo made in it."""

from typing import NamedTuple

import msgspec
from rich.console import Console

from handoff_common.log import EventLog
from handoff_standalone.system import System

DOMAIN = "chat.example.com"


class Place(NamedTuple):
    """Where the system is: its API, its edge's port, its log where that can be reached."""

    api_url: str
    edge_port: int
    log: EventLog | None
    operator_token: str


class Customer(msgspec.Struct, frozen=True):
    customer_id: str
    service_id: str
    engineer_token: str
    billing_token: str
    password: str
    """Of every user's."""


def place_of(running: System) -> Place:
    """Where a system in this process is."""
    token = (running.data_dir / "operator-token").read_text().strip()
    return Place(running.endpoints.api_url, running.endpoints.edge_port, running.log, token)


def say_where(place: Place, customer: Customer, console: Console) -> None:
    """Print where a person may look, and sign in."""
    console.print(f"  web interface   [bold]{place.api_url}/[/]")
    console.print("    login         superuser@example.com (or engineer@, billing@, user@)")
    console.print(f"    password      {customer.password}")
    console.print(f"  API             {place.api_url}/docs")
    console.print(f"  clients         ws://{DOMAIN}/rooms/lobby at 127.0.0.1:{place.edge_port}")
    console.print(f"  operator token  {place.operator_token}")
    console.print(f"  engineer token  {customer.engineer_token}")
    console.print(f"  billing token   {customer.billing_token}")
