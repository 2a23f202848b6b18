"""The partition of a key is what Kafka's own clients compute."""

import pytest

from handoff_common.partitioner import murmur2, partition_of

# Vectors of the Java client's own test of its murmur2.
VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "signed"), VECTORS.items())
def test_murmur2_agrees_with_kafka(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed & 0xFFFFFFFF


def test_partitions_are_in_range_and_stable() -> None:
    chosen = [partition_of(f"connection-{n}", 4) for n in range(1_000)]
    assert set(chosen) == {0, 1, 2, 3}
    assert chosen == [partition_of(f"connection-{n}", 4) for n in range(1_000)]
