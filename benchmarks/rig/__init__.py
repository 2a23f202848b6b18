"""What the benchmarks of the edge share: programs that are pinned and measured, the load program,
the peers, our own relays and edges, and the arithmetic of rounds.

It owns no question and no target: those are in the benchmark that asks.
"""

import sys
from pathlib import Path

# The tests' processes and snapshots serve here too.
sys.path.append(str(Path(__file__).parents[2] / "tests"))
