"""A wrong setting stops the start and says what to do."""

import pytest
from pydantic import Field, SecretStr

from handoff_common.errors import SettingError
from handoff_common.settings import Settings, load, shown, unknown


class Example(Settings):
    edge_port: int = Field(8080, ge=0, le=65535, description="where clients connect")
    password: SecretStr = Field(SecretStr("x"), description="a secret")


def test_settings_come_from_prefixed_variables() -> None:
    assert load(Example, {"HANDOFF_EDGE_PORT": "9000", "EDGE_PORT": "1"}).edge_port == 9000


def test_a_wrong_value_is_named_with_what_is_allowed() -> None:
    with pytest.raises(SettingError) as caught:
        load(Example, {"HANDOFF_EDGE_PORT": "70000"})
    text = str(caught.value)
    assert "HANDOFF_EDGE_PORT" in text and "'70000'" in text and "65535" in text


def test_secrets_are_not_shown() -> None:
    settings = load(Example, {"HANDOFF_PASSWORD": "hunter2"})
    assert "hunter2" not in str(shown(settings))


def test_misspelt_variables_are_found() -> None:
    assert unknown([Example], {"HANDOFF_EDGE_PROT": "1", "PATH": "x"}) == ["HANDOFF_EDGE_PROT"]
