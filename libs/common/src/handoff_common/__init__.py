"""What two Handoff services need, and nothing else.

The contracts (`events`, `topics`, `codec`, `minutes`), what a request matches (`matching`,
`request_head`), the log (`log`, `log_sqlite`), the database (`database`, `projection`, `outbox`),
and the shell every service shares (`access`, `http`, `service`, `settings`, `telemetry`). A
rule that only one service needs lives in that service.
"""
