"""The examples of docs/client.md, run as they stand, one after another."""

import asyncio
import re
from pathlib import Path

import pytest

from handoff_client import AsyncClient, services
from support.embedded import Embedded, make_customer, make_tokens

DOCS = Path(__file__).parents[2] / "docs"

pytestmark = pytest.mark.timeout(120)


async def test_the_examples_of_the_client_run(
    system: Embedded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = await make_tokens(system, await make_customer(system))
    monkeypatch.setenv("HANDOFF_API_URL", system.api_url)
    monkeypatch.setenv("HANDOFF_TOKEN", tokens["superuser"])
    async with AsyncClient(system.api_url, tokens["superuser"]) as client:
        await client.run(services.create("first"))
    text = (DOCS / "client.md").read_text()
    examples = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(examples) > 5

    def run() -> None:
        names: dict[str, object] = {"__name__": "examples"}
        for number, example in enumerate(examples, 1):
            exec(compile(example, f"docs/client.md, example {number}", "exec"), names)

    await asyncio.to_thread(run)
    said = capsys.readouterr().out
    assert "first 1" in said
    assert "0 connections are open" in said
    assert "400 no_product_on_service ngwaf is not enabled" in said
    assert "somebody was faster: precondition_failed" in said
    assert "http://127.0.0.1:1 cannot be reached" in said
