"""Metering: connection events become usage minutes and bytes, live, provable, rebuildable.

It owns the projection of `handoff.connections.v1`, the accrual of open connections, the decision
that an edge is lost, and the statistics API. It knows no prices and no money.
"""
