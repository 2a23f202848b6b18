"""Settings: read once from the environment, validated, printed without secrets.

A service's settings are one frozen pydantic model; field `edge_port` is `HANDOFF_EDGE_PORT`. A
field whose value must not be printed has the type `SecretStr`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from handoff_common.errors import SettingError

PREFIX = "HANDOFF_"
_URL_PASSWORD = re.compile(r"(://[^/:@\s]*:)[^/\s]*@")


class Settings(BaseModel):
    """Base of each service's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


_Seconds = Annotated[float, Field(gt=0, le=600)]


class DatabaseSettings(Settings):
    """How a service asks Postgres; each wait is in seconds, up to 600. SQLite needs none."""

    database_pool: Annotated[
        int, Field(ge=2, le=100, description="Postgres connections per process; 2 to 100")
    ] = 8
    database_acquire_timeout: _Seconds = Field(
        30.0, description="for a connection of the pool, or for a turn to write"
    )
    database_connect_timeout: _Seconds = Field(5.0, description="to open a connection to Postgres")
    database_statement_timeout: _Seconds = Field(30.0, description="for one statement")
    database_lock_timeout: _Seconds = Field(10.0, description="for a lock that another holds")
    database_idle_timeout: _Seconds = Field(
        60.0, description="until Postgres ends a transaction that does nothing"
    )


S = TypeVar("S", bound=Settings)


def variable(field: str) -> str:
    return PREFIX + field.upper()


def load(model: type[S], environ: Mapping[str, str]) -> S:
    """Read the model's settings. Variables of other services are left alone; see `unknown`.

    Raises SettingError that names each wrong variable, its value and what it takes.
    """
    given = {f: environ[variable(f)] for f in model.model_fields if variable(f) in environ}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise SettingError("\n".join(_explain(model, given, error))) from None


def unknown(models: Iterable[type[Settings]], environ: Mapping[str, str]) -> list[str]:
    """Variables with our prefix that no model reads: most likely misspelt."""
    known = {variable(field) for model in models for field in model.model_fields}
    return sorted(name for name in environ if name.startswith(PREFIX) and name not in known)


def shown(settings: Settings) -> dict[str, str]:
    """Variable → value as text, secrets and the passwords in URLs starred."""
    values = {name: str(getattr(settings, name)) for name in type(settings).model_fields}
    return {variable(name): _URL_PASSWORD.sub(r"\1***@", text) for name, text in values.items()}


def documented(model: type[Settings]) -> list[tuple[str, str, str]]:
    """(variable, default, description) of each setting, for the docs and the test that compares."""
    return [(variable(n), _default(f), f.description or "") for n, f in model.model_fields.items()]


def _default(field: FieldInfo) -> str:
    return "(required)" if field.is_required() else str(field.default)


def _explain(
    model: type[Settings], given: Mapping[str, str], error: ValidationError
) -> Iterable[str]:
    for problem in error.errors(include_url=False):
        field = str(problem["loc"][0]) if problem["loc"] else ""
        description = model.model_fields[field].description if field in model.model_fields else ""
        secret = "Secret" in str(model.model_fields[field].annotation) if description else False
        value = "(not set)" if field not in given else "(secret)" if secret else repr(given[field])
        text = f"{variable(field)} = {value}: {problem['msg']}"
        yield f"{text} ({description})" if description else text
