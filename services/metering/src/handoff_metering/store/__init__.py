"""Metering's SQL. `states` is what the projection reads and writes, `reports` what the API reads.

Functions take the caller's transaction; none begins or ends one.
"""
