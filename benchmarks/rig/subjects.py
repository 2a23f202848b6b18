"""Whoever is measured: something that clients connect to, and that connects to the origin."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Subject:
    """pid: the process that all others of it came of. tls_port: 0 where it has none. hosts: names
    that clients ask for, in turn. log: URL of an edge's log."""

    name: str
    pid: int
    port: int
    tls_port: int = 0
    hosts: tuple[str, ...] = ("localhost",)
    log: str = ""
