"""A file that cannot be used is named, whatever the libraries say of it, and ends nothing."""

import asyncio
import os
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme

from handoff_common.telemetry import new_registry
from handoff_edge.certificates import BadCertificate, Certificates, read
from handoff_edge.metrics import Metrics
from handoff_relay import Identity

CA = trustme.CA()
VERSION_3, VERSION_2 = b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x01"
AUTHORITY_KEY, ALTERNATIVE_NAME = b"\x06\x03\x55\x1d\x23", b"\x06\x03\x55\x1d\x11"


def put(path: Path, *, changed: Callable[[bytes], bytes] = lambda der: der) -> None:
    """One file with certificate and key. changed: makes another of the certificate's DER."""
    certified = CA.issue_cert("chat.example.com")
    der = ssl.PEM_cert_to_DER_cert(certified.cert_chain_pems[0].bytes().decode())
    chain = ssl.DER_cert_to_PEM_cert(changed(der)).encode()
    path.write_bytes(chain + certified.private_key_pem.bytes())


def of_version_2(der: bytes) -> bytes:
    assert der.count(VERSION_3) == 1
    return der.replace(VERSION_3, VERSION_2)


def with_names_twice(der: bytes) -> bytes:
    assert der.count(AUTHORITY_KEY) == 1
    return der.replace(AUTHORITY_KEY, ALTERNATIVE_NAME)


SPOILED: dict[str, Callable[[Path], Any]] = {
    "version": lambda path: put(path, changed=of_version_2),
    "extension": lambda path: put(path, changed=with_names_twice),
    "cut": lambda path: put(path, changed=lambda der: der[:-9]),
    "folder": lambda path: path.mkdir(),
    "loop": lambda path: path.symlink_to(path),
    "bytes": lambda path: path.write_bytes(os.urandom(1000) + b"PRIVATE KEY-----"),
}


class Served:
    """Takes identities for TLS. fault: what it raises for the one with this key."""

    def __init__(self) -> None:
        self.fault: tuple[bytes, Exception] | None = None

    def __call__(self, identities: Sequence[Identity]) -> Any:
        if self.fault is not None and any(i.key == self.fault[0] for i in identities):
            raise self.fault[1]
        return object()


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_what_is_no_certificate_is_named(tmp_path: Path, spoil: Callable[[Path], Any]) -> None:
    put(tmp_path / "good.pem")
    assert len(read(tmp_path).identities) == 1
    spoil(tmp_path / "odd.pem")
    with pytest.raises(BadCertificate, match=r"odd\.pem: "):
        read(tmp_path)


@pytest.mark.parametrize("error", [ValueError("wrong"), OSError("disk full"), RuntimeError("odd")])
def test_what_tls_does_not_take_is_named(tmp_path: Path, error: Exception) -> None:
    served = Served()
    certificates = Certificates(tmp_path, served, Metrics(new_registry()), interval=1)
    put(tmp_path / "good.pem")
    certificates.load()
    before = certificates.now()
    put(tmp_path / "odd.pem")
    served.fault = ((tmp_path / "odd.pem").read_bytes(), error)
    with pytest.raises(BadCertificate, match=rf"odd\.pem: {error}"):
        certificates.load()
    assert certificates.now() is before


async def test_an_odd_file_does_not_end_the_looks(tmp_path: Path) -> None:
    put(tmp_path / "good.pem")
    metrics = Metrics(new_registry())
    certificates = Certificates(tmp_path, Served(), metrics, interval=0.001)
    certificates.load()
    before = certificates.now()
    running = asyncio.create_task(certificates.run())

    async def unusable(value: float) -> None:
        name = "handoff_edge_certificates_unusable"
        async with asyncio.timeout(15):
            while metrics.registry.get_sample_value(name) != value:
                assert not running.done()
                await asyncio.sleep(0.002)

    try:
        put(tmp_path / "odd.pem", changed=of_version_2)
        await unusable(1)
        assert certificates.now() is before
        put(tmp_path / "odd.pem")
        await unusable(0)
        assert certificates.now() is not before
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
