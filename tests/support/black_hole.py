"""A machine of its own beside this one, whose cable can be cut: a network namespace and a pair of
virtual interfaces. Once it is cut, nothing that is sent to it is answered, and nothing says so.
"""

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000


class FarMachine:
    """near: this machine's address on the cable; far: the other's."""

    def __init__(self, number: int) -> None:
        # Four addresses each, of a range that is set aside for benchmarks.
        first = 4 * (number % 16_000)
        self.near, self.far = (f"198.18.{(first + n) // 256}.{(first + n) % 256}" for n in (1, 2))
        self._name = f"handoff{number}"
        self._ends = f"hn{number}", f"hf{number}"

    def plug_in(self) -> None:
        near, far = self._ends
        _ip("netns", "add", self._name)
        _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", self._name)
        for name, address, where in ((near, self.near, ()), (far, self.far, ("-n", self._name))):
            _ip(*where, "address", "add", f"{address}/30", "dev", name)
            _ip(*where, "link", "set", name, "up")
        # Else this machine would find out, after a while, that nobody has the address any more.
        hardware = _ip("-n", self._name, "-br", "link", "show", far).split()[2]
        _ip("neigh", "replace", self.far, "lladdr", hardware, "dev", near, "nud", "permanent")

    def cut(self) -> None:
        """The other machine is not there any more; what is sent to it is dropped."""
        _ip("-n", self._name, "address", "del", f"{self.far}/30", "dev", self._ends[1])

    def unplug(self) -> None:
        for what in (("link", "del", self._ends[0]), ("netns", "del", self._name)):
            subprocess.run(["ip", *what], capture_output=True, check=False)

    def there(self, make: Callable[[], T]) -> T:
        """Call it on the other machine: sockets that it makes are that one's."""
        made: list[T] = []

        def enter() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            with open(f"/run/netns/{self._name}", "rb") as namespace:
                assert libc.setns(namespace.fileno(), _CLONE_NEWNET) == 0, os.strerror(
                    ctypes.get_errno()
                )
            made.append(make())

        # A namespace is a thread's.
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        return made[0]


def _ip(*arguments: str) -> str:
    command = ["ip", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise AssertionError("this test needs `ip` (iproute2)") from None
    assert done.returncode == 0, (
        f"`{' '.join(command)}` failed: {done.stderr.strip()}. This test makes a network namespace "
        "and a veth pair: it must run as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN"
    )
    return done.stdout


@contextmanager
def far_machine() -> Iterator[FarMachine]:
    machine = FarMachine(os.getpid() % 100_000)
    machine.unplug()
    try:
        machine.plug_in()
        yield machine
    finally:
        machine.unplug()


def relays_end(peer: tuple[str, int]) -> socket.socket:
    """A further handle on the socket, of this process, that is connected to `peer`."""
    for name in os.listdir("/proc/self/fd"):
        try:
            sock = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        try:
            if sock.getpeername()[:2] == peer:
                return sock
        except (OSError, IndexError, TypeError):
            pass
        sock.close()
    raise AssertionError(f"no socket is connected to {peer}")
