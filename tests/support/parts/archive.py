"""Makes the archive of classes that a broker loads at start (`install.sh` calls it once per
version).

python -m support.parts.archive FILE
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from support.parts.kafka import KafkaBroker, create_topic


async def make(file: Path) -> None:
    """Run a broker once, with a topic, and let Java write down what it loaded."""
    partial = file.with_suffix(".partial")
    with tempfile.TemporaryDirectory() as folder:
        broker = KafkaBroker(Path(folder), jvm=(f"-XX:ArchiveClassesAtExit={partial}",))
        async with broker:
            await create_topic(broker.bootstrap, "first")
            await broker.stop()
    partial.replace(file)


if __name__ == "__main__":
    asyncio.run(make(Path(sys.argv[1])))
