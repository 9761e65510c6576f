"""The jars of Apache Kafka, by their coordinates, fetched once by Maven into the checkout's cache."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

CACHE: Final = Path(__file__).parents[2] / ".cache" / "kafka"
VERSIONS: Final = {"4": "4.4.0", "3.9": "3.9.2"}
"""The newest line, and the last one that still carries clusters from before KRaft."""

_COPY: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_POM: Final = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>zoho-sync.tests</groupId>
  <artifactId>kafka-server</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{version}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""


class KafkaUnavailableError(Exception):
    """Apache Kafka cannot be had on this machine; the text says what is missing."""


def jars(line: str) -> Path:
    """The folder with every jar that a broker of this line ("4", "3.9") needs.

    Blocks while Maven fetches them the first time. Raises KafkaUnavailableError.
    """
    version = VERSIONS[line]
    folder = CACHE / version
    with _one_at_a_time(version):
        if not folder.exists():
            _fetch(version, folder)
    return folder


def java() -> str:
    """The Java runtime that runs the broker. Raises KafkaUnavailableError."""
    return _program("java")


@contextmanager
def _one_at_a_time(version: str) -> Iterator[None]:
    """Test workers are processes of their own: one fetches, the others wait and find the result."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(version: str, folder: Path) -> None:
    maven = _program("mvn")
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        pom = Path(scratch) / "pom.xml"
        pom.write_text(_POM.format(version=version))
        target = Path(scratch) / "jars"
        arguments = ["-Dstyle.color=never", "-DincludeScope=runtime", f"-DoutputDirectory={target}"]
        done = subprocess.run(
            [maven, "--quiet", "--batch-mode", "--file", pom, _COPY, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise KafkaUnavailableError(f"Maven could not fetch Kafka {version}: {_first_error(done.stdout)}")
        target.rename(folder)


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise KafkaUnavailableError(f"{name} is not installed")
    return path


def _first_error(text: str) -> str:
    errors = (line.removeprefix("[ERROR]").strip() for line in text.splitlines())
    return next(filter(None, errors), "it did not say why")
