"""The broker that `demo` embeds, as tests see it: quick, and short of an operator's commands."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.kafka_server.children import ends_with_us
from tests.kafka_server.cluster import OpenCluster


@contextmanager
def run_embedded_broker() -> Iterator[OpenCluster]:
    """It keeps its records in memory; it cannot add partitions to a topic, nor delete records."""
    with subprocess.Popen(
        ends_with_us([sys.executable, "-m", "sandbox", "broker"]), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        try:
            yield OpenCluster(json.loads(process.stdout.readline())["bootstrap_servers"])
        finally:
            process.terminate()
