"""The files that pages load: ours and, in `static/vendor`, others'. Served with a mark of their
content in the address: browsers keep them for good and still get a new release's at once."""

import hashlib
from pathlib import Path
from typing import Any

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

FOLDER = Path(__file__).parent / "static"
_FOR_EVER = "public, max-age=31536000, immutable"


class Files(StaticFiles):
    def __init__(self) -> None:
        super().__init__(directory=FOLDER)
        self._marks = {
            str(path.relative_to(FOLDER)): hashlib.sha256(path.read_bytes()).hexdigest()[:12]
            for path in FOLDER.rglob("*")
            if path.is_file()
        }

    def address(self, name: str) -> str:
        """As `/static/app.css?v=0123456789ab`. Raises KeyError where there is no such file."""
        return f"/static/{name}?v={self._marks[name]}"

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        query = dict[str, Any](part.partition("=")[::2] for part in _query(scope).split("&"))
        kept = query.get("v") == self._marks.get(path)
        response.headers["Cache-Control"] = _FOR_EVER if kept else "no-cache"
        return response


def _query(scope: Scope) -> str:
    return bytes(scope.get("query_string", b"")).decode("latin-1")
