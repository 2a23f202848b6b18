"""`handoff demo`: the whole system on this machine, from an upgrade request to a proved invoice."""
