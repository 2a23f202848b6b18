"""The models of requests that hold a password, and of what signing in answers.

A refusal names fields and what is allowed; of what was given it repeats only fields that are known
not to be secret. What nobody asked for may be a password under a misspelt name.
"""

from datetime import datetime
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from handoff_common.http import StrictModel
from handoff_config.fields import MAX_NAME
from handoff_config.passwords import MAX_PASSWORD, MIN_PASSWORD
from handoff_config.schemas import Role

_PASSWORD: dict[str, Any] = {"format": "password", "writeOnly": True}
NewPassword = Annotated[
    str,
    Field(
        description=f"{MIN_PASSWORD} to {MAX_PASSWORD} characters, not the login",
        json_schema_extra=_PASSWORD,
    ),
]


class SecretBody(StrictModel):
    """shown: fields whose value a refusal may repeat."""

    shown: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="wrap")
    @classmethod
    def _hide(cls, value: object, handler: ModelWrapValidatorHandler["SecretBody"]) -> "SecretBody":
        try:
            return handler(value)
        except ValidationError as error:
            found = error.errors(include_url=False)
        raise ValidationError.from_exception_data(
            cls.__name__,
            [
                InitErrorDetails(
                    type=PydanticCustomError(problem["type"], "{text}", {"text": problem["msg"]}),
                    loc=problem["loc"],
                    input=(
                        problem["input"]
                        if problem["loc"] and problem["loc"][0] in cls.shown
                        else "(secret)"
                    ),
                )
                for problem in found
            ],
        )


class NewUser(SecretBody):
    shown = frozenset({"login", "name", "role"})

    login: str = Field(description="Unique in the whole deployment")
    name: str = ""
    role: Role
    password: NewPassword | None = Field(None, description="Without one it cannot sign in")


class PasswordIn(SecretBody):
    password: NewPassword
    current_password: str | None = Field(
        None,
        max_length=MAX_PASSWORD,
        description="One's present password, to set one's own; not looked at for other users",
        json_schema_extra=_PASSWORD,
    )


class SignInIn(SecretBody):
    login: str = Field(max_length=MAX_NAME)
    password: str = Field(max_length=MAX_PASSWORD, json_schema_extra=_PASSWORD)


class SessionUser(BaseModel):
    id: str
    login: str
    name: str
    role: Role


class SessionCustomer(BaseModel):
    id: str
    name: str


class SessionOut(BaseModel):
    """`access_token` is a token like any other, of scope `global`, until `expires_at`."""

    access_token: str = Field(description="Shown this once")
    token_id: str
    expires_at: datetime
    user: SessionUser
    customer: SessionCustomer
