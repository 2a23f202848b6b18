"""Inputs that are almost right: a corpus whose members are cut, joined, repeated and spoiled, for
as long as is wanted. Hypothesis finds small counterexamples to a rule; this finds what nobody
thought of, in minutes of plain speed.
"""

import os
import random
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

SECONDS: Final = float(os.environ.get("HANDOFF_FUZZ_SECONDS", "1"))
"""Of each target, of the processor: a busy machine's clock would promise more than was done."""

SEED: Final = int(os.environ.get("HANDOFF_FUZZ_SEED", "0")) or time.time_ns()
_CHECK_EVERY = 64
_KEEP = 400
_LONGEST = 4_096


def fuzz(corpus: Sequence[bytes], dictionary: Sequence[bytes], check: Callable[..., object]) -> int:
    """Call `check(data, chance)` with ever other data; how often. It fails with the data, and with
    the seed by which the run is had again.

    check: what it returns tells kinds of outcome apart; data of a kind not seen before is kept, and
    mutated further.
    """
    chance = random.Random(SEED)
    pool = list(corpus)
    kinds: set[object] = set()
    over = time.process_time() + SECONDS
    count = 0
    while count % _CHECK_EVERY or time.process_time() < over:
        data = pool[count] if count < len(corpus) else _mutated(chance, pool, dictionary)
        count += 1
        try:
            kind = check(data, chance)
        except Exception as error:
            error.add_note(f"with {data!r}\nHANDOFF_FUZZ_SEED={SEED}, case {count}")
            raise
        if kind not in kinds and len(pool) < _KEEP:
            kinds.add(kind)
            pool.append(data)
    print(f"{count} cases of {len(kinds)} kinds in {SECONDS:g} s, seed {SEED}")
    return count


def cuts(data: bytes, chance: random.Random, most: int = 5) -> list[bytes]:
    """The same bytes in a few pieces."""
    places = sorted(chance.randint(0, len(data)) for _ in range(chance.randint(0, most)))
    edges = [0, *places, len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def _mutated(chance: random.Random, pool: Sequence[bytes], dictionary: Sequence[bytes]) -> bytes:
    data = bytearray(chance.choice(pool))
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        at = chance.randint(0, len(data))
        match chance.randrange(7):
            case 0:
                data[at:at] = chance.choice(dictionary)
            case 1:
                del data[at : at + chance.choice((1, 1, 2, 8, 40))]
            case 2:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 3 if data:
                data[at % len(data)] ^= 1 << chance.randrange(8)
            case 4:
                data[at:at] = data[at : at + chance.choice((1, 4, 30))]
            case 5:
                other = chance.choice(pool)
                start = chance.randint(0, len(other))
                data[at:] = other[start:]
            case _:
                data[at : at + chance.randint(0, 4)] = chance.choice(dictionary)
    return bytes(data[:_LONGEST])
