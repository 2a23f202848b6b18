"""Identifiers. UUIDv7 sort by time; short ids have the shape that clients of this API expect."""

import secrets
import string

import uuid_utils

_ALPHABET = string.ascii_letters + string.digits


def uuid7() -> str:
    """A new UUIDv7 in its canonical form."""
    return str(uuid_utils.uuid7())


def short_id() -> str:
    """22 random letters and digits (131 bits): ids of services and customers."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(22))
