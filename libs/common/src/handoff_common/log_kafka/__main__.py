"""`python -m handoff_common.log_kafka create | check`: the topics of a deployment.

`create` makes what is missing and then checks; `check` only checks. Exit 1 says what is wrong.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from handoff_common import settings
from handoff_common.errors import HandoffError, SettingError
from handoff_common.log_kafka import SCHEME
from handoff_common.log_kafka.topics import REPLICATION, Wanted, check, create
from handoff_common.topics import PARTITIONS


class TopicSettings(settings.Settings):
    """What the topics are to be."""

    log: Annotated[str, Field(pattern=f"^{SCHEME}.+", description="kafka://host:port[,host:port]")]
    topic_partitions: Annotated[
        int, Field(ge=1, le=1000, description="partitions of each topic; fixed when it is made")
    ] = PARTITIONS
    topic_replication: Annotated[
        int, Field(ge=1, le=9, description="copies of each partition; 3 or more in production")
    ] = REPLICATION


async def _run(command: str, environ: Mapping[str, str]) -> None:
    own = settings.load(TopicSettings, environ)
    bootstrap = own.log.removeprefix(SCHEME)
    wanted = Wanted(own.topic_partitions, own.topic_replication)
    if command == "create":
        for name in await create(bootstrap, wanted):
            sys.stdout.write(f"made {name}\n")
    await check(bootstrap, wanted)
    sys.stdout.write("every topic is as it must be\n")


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in ("create", "check"):
        sys.stderr.write("usage: python -m handoff_common.log_kafka create | check\n")
        return 2
    try:
        asyncio.run(_run(arguments[0], os.environ))
    except SettingError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except HandoffError as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
