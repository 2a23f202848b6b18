"""Holds every answer of an application against its own OpenAPI document."""

import re
from typing import Any

from jsonschema import Draft202012Validator


class Conformity:
    """`check` asserts that a success answer's body is what the document says of it."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._validators: dict[tuple[str, str, int], Draft202012Validator] = {}
        self._paths = [
            (re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path) + "$"), path)
            for path in sorted(document["paths"], key=lambda p: (p.count("{"), p))
        ]

    def check(self, method: str, path: str, status: int, body: Any) -> None:
        found = next((p for pattern, p in self._paths if pattern.match(path)), None)
        if found is None or not 200 <= status < 300:
            return
        responses = self._document["paths"][found][method.lower()]["responses"]
        assert str(status) in responses, f"{method} {found} answers {status}, undocumented"
        content = responses[str(status)].get("content")
        if content is None:
            assert body is None, f"{method} {found} answers a body, undocumented"
            return
        key = (method, found, status)
        if key not in self._validators:
            schema = content["application/json"]["schema"]
            whole = {**schema, "components": self._document["components"]}
            self._validators[key] = Draft202012Validator(whole)
        problems = [
            f"{'/'.join(map(str, e.absolute_path))}: {e.message}"
            for e in self._validators[key].iter_errors(body)
        ]
        assert not problems, f"{method} {found}: {problems}"
