"""The longest page, and all that it loads, is under 100 KiB on the wire."""

import gzip
import html
import random
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.console import lone_console

MOST = 100 * 1024
HOURS = 740
SERVICE = "SU1Z0isxPaozGVKXdv0eY"


def busy(regions: int, since: datetime) -> dict[str, Any]:
    """Path → answer. Of a large service: figures of many digits, another one in every row."""
    random_ = random.Random(7)
    counters = [
        f"{way}_{part}_bytes"
        for way in ("req", "resp", "bereq", "beresp")
        for part in ("header", "body")
    ]
    hours = [since + timedelta(hours=number) for number in range(HOURS)]
    usage = [
        {
            "start": f"{hour:%Y-%m-%dT%H:00:00Z}",
            "service_id": SERVICE,
            "region": f"region-{region}",
            "minutes": random_.randint(10_000, 9_000_000),
            "opened": random_.randint(1_000, 900_000),
            "closed": random_.randint(1_000, 900_000),
            "lost": random_.randint(0, 9),
        }
        | {name: random_.randint(10**7, 10**12) for name in counters}
        for hour in hours
        for region in range(regions)
    ]
    open_ = [
        {
            "start": f"{hour:%Y-%m-%dT%H:00:00Z}",
            "opened": 1,
            "closed": 1,
            "peak": random_.randint(10_000, 99_000),
            "average": f"{random_.uniform(1_000, 90_000):.3f}",
        }
        for hour in hours
    ]
    return {
        "/v1/usage": {"data": usage, "meta": {"next_cursor": None}},
        "/v1/concurrency": {"data": open_},
        "/service": [],
    }


@pytest.mark.parametrize("regions", [1, 2, 4, 8])
async def test_the_longest_page_is_small_on_the_wire(tmp_path: Path, regions: int) -> None:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    since = now - timedelta(hours=HOURS - 1)
    answers = busy(regions, since)

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=answers[request.url.path])

    async with lone_console(tmp_path, answer) as (http, _):
        page = await http.get(f"/usage?by=hour&from={since:%Y-%m-%dT%H:00}&service_id={SERVICE}")
        assert page.status_code == 200
        before = re.search(r'href="([^"]+)">those before them', page.text)
        assert before is not None
        assert page.text.count("<time") < 3 * 100
        files = set(re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text))
        assert len(files) >= 6
        sizes = {"the page": len(gzip.compress(page.content))}
        for file in files:
            sizes[file] = len(gzip.compress((await http.get(file)).content))
        assert sum(sizes.values()) < MOST, sizes
        older = await http.get(html.unescape(before[1]))
        latest = f"{now - timedelta(hours=96):%Y-%m-%d %H:00}"
        assert f">{latest}</time></a></th>" in older.text
        assert f">{latest}</time></a></th>" not in page.text
