"""Schema of billing's database, revision by revision."""
