"""A real Postgres server from Debian's binaries, in a temporary folder of its own.

It owns the server's folder, port and processes. Postgres refuses to run as root, so root runs it as
the user `postgres`, in a folder that this user may enter (pytest's are closed to others).

    async with PostgresServer() as server:
        await server.create_database("metering")
        engine = create_async_engine(server.url("metering"))
        ...
        await server.kill()      # SIGKILL of the postmaster, and no process of it is left
        await server.restart()   # the same data, the same port: crash recovery
"""

import getpass
import os
import re
import secrets
import shutil
import signal
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import quote, unquote, urlsplit

import asyncpg

from support.parts.kafka import MissingPart
from support.parts.processes import Process, alive, free_port
from support.parts.waiting import eventually

START_SECONDS = 60.0
READY = "database system is ready to accept connections"

# Durability is Postgres's default (fsync, full page writes, synchronous commit) and stays so: a
# test that kills the server asks exactly for that.
SETTINGS: Mapping[str, str] = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "timezone": "UTC",
    # A crashed backend, a lock waited for, a deadlock: the log of a failed test should tell.
    "log_lock_waits": "on",
}
# Commits reach only the kernel: enough wherever nothing is ever killed.
FLEETING: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


@dataclass(frozen=True)
class Address:
    """Where a server is and how to log in as one who may create databases."""

    host: str
    port: int
    user: str
    password: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """From postgresql://user:password@host:port[/database]; `+driver` is ignored."""
        parts = urlsplit(url)
        if not parts.hostname or not parts.scheme.startswith("postgres"):
            raise ValueError(f"{url!r} is not postgresql://user:password@host:port")
        return cls(
            parts.hostname,
            parts.port or 5432,
            unquote(parts.username or "postgres"),
            unquote(parts.password or ""),
        )

    def dsn(self, database: str = "postgres") -> str:
        """For asyncpg itself."""
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return f"postgresql://{login}@{self.host}:{self.port}/{database}"

    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        """For SQLAlchemy with asyncpg. port: of a proxy that stands before the server."""
        through = self if port is None else Address("127.0.0.1", port, self.user, self.password)
        return through.dsn(database).replace("postgresql://", "postgresql+asyncpg://", 1)

    async def create_database(self, name: str, *, template: str = "template1") -> None:
        await self.execute(f'CREATE DATABASE "{checked(name)}" TEMPLATE "{checked(template)}"')

    async def drop_database(self, name: str) -> None:
        """Also while somebody is connected to it."""
        await self.execute(f'DROP DATABASE IF EXISTS "{checked(name)}" WITH (FORCE)')

    async def execute(self, statement: str, database: str = "postgres") -> None:
        """One statement outside any transaction."""
        connection = await asyncpg.connect(self.dsn(database), timeout=20)
        try:
            await connection.execute(statement, timeout=60)
        finally:
            await connection.close(timeout=5)


def checked(name: str) -> str:
    """A database name that needs no quoting rules."""
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name):
        raise ValueError(f"{name!r}: use lower-case letters, digits and _, 63 at most")
    return name


class Database(Protocol):
    """What a test can do to a Postgres server, wherever it runs."""

    @property
    def address(self) -> Address: ...
    def url(self, database: str = "postgres", *, port: int | None = None) -> str: ...
    async def create_database(self, name: str, *, template: str = "template1") -> None: ...
    async def start(self) -> None: ...
    async def stop(self) -> int: ...
    async def kill(self) -> None: ...
    async def restart(self) -> None: ...
    def log_tail(self) -> str: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def binaries() -> Path:
    """The newest server's folder of programs."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: int(re.sub(r"\D", "", path.parts[-3]) or 0),
    )
    if found:
        return found[-1].parent
    path = shutil.which("initdb")
    if path is None:
        raise MissingPart("no Postgres server found: tests/support/install.sh installs it")
    return Path(path).resolve().parent


def version() -> str:
    """As the folder of Debian's package says it."""
    return binaries().parent.name


@dataclass
class PostgresServer:
    """One server. durable=False: commits survive nothing, and tests that kill nothing are quicker.

    settings: configuration over the one of this module. The folder is removed by `remove` or at the
    end of `async with`.
    """

    durable: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    folder: Path | None = None
    _password: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    _process: Process | None = None

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.port, "handoff", self._password)

    @property
    def pid(self) -> int:
        """The postmaster's."""
        assert self._process is not None
        return self._process.pid

    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        return self.address.url(database, port=port)

    async def create_database(self, name: str, *, template: str = "template1") -> None:
        await self.address.create_database(name, template=template)

    async def start(self) -> None:
        """Start, on the data that is there or on a new cluster, and wait until it serves."""
        if self.folder is None:
            await self._init()
        assert self.folder is not None
        options = {
            **SETTINGS,
            **({} if self.durable else FLEETING),
            **self.settings,
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
        }
        command = [str(binaries() / "postgres"), "-D", str(self.folder / "data")]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        self._process = self._run("postgres", command)
        await self._process.start()
        await self._process.wait_line(READY, seconds=START_SECONDS)

    async def _init(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="handoff-postgres-"))
        secret = self.folder / "password"
        secret.write_text(self._password)
        if (user := server_user()) is not None:
            shutil.chown(self.folder, user)
            shutil.chown(secret, user)
        secret.chmod(0o600)
        init = self._run(
            "initdb",
            [
                str(binaries() / "initdb"),
                *("-D", str(self.folder / "data")),
                *("--username", self.address.user),
                *("--pwfile", str(secret)),
                *("--auth", "scram-sha-256"),
                *("--encoding", "UTF8", "--locale", "C.UTF-8"),
                "--no-sync",
                "--no-instructions",
            ],
        )
        await init.start()

        async def done() -> int | None:
            return init.exit_status

        status = await eventually(done, "initdb is done", seconds=START_SECONDS)
        assert status == 0, f"initdb failed with {status}: {init.tail()}"

    def _run(self, name: str, command: list[str]) -> Process:
        assert self.folder is not None
        return Process(
            name,
            command,
            self.folder / f"{name}.log",
            {"LC_ALL": "C.UTF-8"},
            user=server_user(),
            cwd=self.folder,
        )

    async def stop(self) -> int:
        """A fast shutdown (SIGINT): sessions are ended, all is written. The exit status."""
        assert self._process is not None, "the server was never started"
        return await self._process.stop(signum=signal.SIGINT)

    async def kill(self) -> None:
        """SIGKILL of the postmaster; returns when the last of its children has noticed and is
        gone."""
        assert self._process is not None, "the server was never started"
        family = children(self._process.pid)
        await self._process.kill()

        async def gone() -> bool | None:
            return None if any(alive(pid) for pid in family) else True

        await eventually(gone, f"the processes {family} of the killed Postgres are gone")

    async def restart(self) -> None:
        """Start again on the same data and port, after `kill` or `stop`; stops it if it runs."""
        if self._process is not None and self._process.running:
            await self.stop()
        await self.start()

    def log_tail(self) -> str:
        return "" if self._process is None else self._process.tail()

    def remove(self) -> None:
        """Throw the folder away."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._process is not None and self._process.running:
                await self.kill()
        finally:
            self.remove()


def server_user() -> str | None:
    """Whom the server runs as: None is whoever runs the tests."""
    return "postgres" if os.geteuid() == 0 and getpass.getuser() != "postgres" else None


def children(pid: int) -> list[int]:
    """The processes whose parent is `pid`."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid:
            found.append(int(file.parent.name))
    return found
