"""`/docs`: the service's OpenAPI document as a page to read and to try calls from.

Its script and style come from this process, so that the page works where no other network is
reached, and no other site sees who reads it. The page names all of it relative to itself: a gateway
serves several services on one port, each page below its service's name.
"""

from importlib.resources import files
from typing import Final

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import Response

from handoff_common.errors import not_found

ASSETS: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}


def add_docs_page(app: FastAPI) -> None:
    """Add the page and what it loads; neither is part of the document."""

    @app.get("/docs", include_in_schema=False)
    async def page() -> Response:
        script, style, icon = (f"docs/{name}" for name in ASSETS)
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=app.title,
            swagger_js_url=script,
            swagger_css_url=style,
            swagger_favicon_url=icon,
            swagger_ui_parameters={"persistAuthorization": False},
        )

    @app.get("/docs/{name}", include_in_schema=False)
    def asset(name: str) -> Response:
        if name not in ASSETS:
            raise not_found("file", name)
        content = (files("fastapi_offline") / "static" / name).read_bytes()
        return Response(
            content, media_type=ASSETS[name], headers={"cache-control": "public, max-age=3600"}
        )
