"""Metering's SQL: `states` is connections and totals, `slices` where the projection stands and what
has been published, `reports` what the API reads.

Functions take the caller's transaction; none begins or ends one.
"""
