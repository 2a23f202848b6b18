"""Every test of this folder runs on SQLite and on Postgres."""

from support.databases import engine as engine
