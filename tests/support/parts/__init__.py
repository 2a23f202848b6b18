"""Real parts for tests: a Kafka broker, a Postgres server, a proxy that cuts, processes to kill.

    kafka.py       one broker from its published jars, in KRaft mode
    postgres.py    one server from Debian's binaries
    containers.py  the same two from images, where Docker can be had
    choice.py      given address → Docker → this machine
    shared.py      one of each per test run, shared by the workers of pytest-xdist
    fixtures.py    what tests ask for by name
    proxy.py       a TCP proxy that cuts, swallows, delays, slows and restores
    processes.py   start, wait for, kill, stop a process; free ports
    environment.py the variables that steer all this
    waiting.py     wait for a condition with a deadline

`tests/support/install.sh` puts the binaries there. A part that is missing fails the test that asked
for it and says what to install; nothing is skipped.
"""
