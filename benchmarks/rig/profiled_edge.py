"""The edge under cProfile, for as long as it is asked for: not while it starts and stops.

    python profiled_edge.py FILE serve

SIGUSR1 begins, SIGUSR2 ends and writes the statistics to the file. It is the event loop's thread
that is looked at; the journal's writer and a native relay have their own.
"""

import cProfile
import signal
import sys

from handoff_edge.__main__ import main


def begin(_: int, __: object) -> None:
    _profile.enable()


def end(_: int, __: object) -> None:
    _profile.disable()
    _profile.dump_stats(sys.argv[1])


_profile = cProfile.Profile()

if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, begin)
    signal.signal(signal.SIGUSR2, end)
    sys.exit(main(sys.argv[2:]))
