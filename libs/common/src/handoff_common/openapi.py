"""What an OpenAPI document says beyond the operations themselves: how a refusal looks, and where a
token goes. Pure."""

from typing import Any

PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "application/problem+json",
    "required": ["type", "title", "status", "detail", "errors", "request_id"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:handoff:error:no_such_path"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["property", "reason"],
                "properties": {"property": {"type": "string"}, "reason": {"type": "string"}},
            },
        },
        "request_id": {"type": "string"},
    },
}
CLASSIC = {
    "type": "object",
    "title": "ClassicError",
    "required": ["msg", "detail"],
    "properties": {"msg": {"type": "string"}, "detail": {"type": "string"}},
}

TOKENS = {
    "Fastly-Key": {"type": "apiKey", "in": "header", "name": "Fastly-Key"},
    "Bearer": {"type": "http", "scheme": "bearer"},
}
OPEN_TO_ALL = ("/healthz", "/readyz", "/metrics")


def is_under(path: str, prefixes: tuple[str, ...]) -> bool:
    """Whether the path is one of the prefixes, or below one."""
    return any(path == prefix or path.startswith(prefix + "/") for prefix in prefixes)


def with_refusals(document: dict[str, Any], classic: tuple[str, ...]) -> dict[str, Any]:
    """The document, with the shape of a refusal as the default answer of every operation.

    It takes the place of the framework's own description of invalid input, which is not what the
    services answer.
    """
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas |= {"Problem": PROBLEM, "ClassicError": CLASSIC}
    for path, operations in document["paths"].items():
        name, media = ("Problem", "application/problem+json")
        if is_under(path, classic):
            name, media = ("ClassicError", "application/json")
        schema = {"$ref": f"#/components/schemas/{name}"}
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"].setdefault(
                "default",
                {
                    "description": "A refusal, and what is allowed",
                    "content": {media: {"schema": schema}},
                },
            )
    return document


def with_tokens(document: dict[str, Any], open_paths: tuple[str, ...] = ()) -> dict[str, Any]:
    """The document, with the two ways to give a token, either of which every operation takes but
    those that ask for none: the shared ones, and those of `open_paths`."""
    document["components"]["securitySchemes"] = TOKENS
    document["security"] = [{name: []} for name in TOKENS]
    for path in (*OPEN_TO_ALL, *open_paths):
        for operation in document["paths"].get(path, {}).values():
            operation["security"] = []
    return document
