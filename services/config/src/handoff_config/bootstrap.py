"""The first operator token: made at the first start, in a file that only its owner reads."""

import os
from pathlib import Path

from handoff_common.access import new_token, token_hash
from handoff_common.clock import Clock
from handoff_common.ids import uuid7
from handoff_common.telemetry import get_logger
from handoff_config import account_commands
from handoff_config.account_commands import NewToken
from handoff_config.store import Actor, Store
from handoff_config.streams import OPERATORS

FILE_NAME = "operator-token"


async def ensure_operator_token(store: Store, clock: Clock, path: Path) -> None:
    """See that `path` holds an operator token that is in force.

    Where it is missing, or holds none that is known, a new token is made, written with mode 600,
    and logged (its id, never its text); tokens made before stay valid. Raises OSError where the
    file cannot be written.
    """
    logger = get_logger("config")
    operators = await store.operators()
    known = operators.tokens.values() if operators else ()
    found = _read(path)
    if found is not None:
        digest = token_hash(found)
        if any(t.sha256 == digest and t.in_force(clock.now_ms()) for t in known):
            return
    text, token_id = new_token(), uuid7()
    new = NewToken(token_id, token_hash(text), "bootstrap", "global", None)
    await store.change(
        OPERATORS,
        "",
        lambda state: account_commands.create_operator_token(state, new, clock.now_ms()),
        actor=Actor(None, None, "start of the deployment"),
    )
    _write(path, text)
    if known:
        reason = "file lost" if found is None else "file holds no token in force"
        logger.warning("operator_token_made_again", token_id=token_id, path=str(path), why=reason)
    else:
        logger.info("operator_token_made", token_id=token_id, path=str(path))


def _read(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    path.chmod(0o600)
    return text


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
