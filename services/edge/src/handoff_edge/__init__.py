"""The edge: takes upgrade requests, hands them off to origins, and publishes what happened.

Core (pure, or sans-IO): `head`, `answer`, `rulebook`, `decision`, `limits`, `addresses`,
`connection`, `endings`. Shells: `protocol` (the client port), `handshake` (one handoff), `origin`
(dial), `tunnels` (what is open), `recorder` and `recovery` (journal), `checkpoints`, `enforcement`,
`configuration` (feeds the rule book), `app` (decision endpoint, admin), `wiring` (joins them).
"""
