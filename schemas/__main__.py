"""`python -m schemas` writes the published schemas; with `--check` it only compares them."""

from __future__ import annotations

import argparse
import sys

from schemas.publish import documents, drifted


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 1 when a check found drift, else 0."""
    parser = argparse.ArgumentParser(prog="python -m schemas", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a file is out of date")
    return check() if parser.parse_args(arguments).check else write()


def check() -> int:
    """Name every published file that is out of date, and the cure."""
    stale = drifted()
    for path in stale:
        print(f"{path.name} does not match the models: run `python -m schemas` and commit it", file=sys.stderr)
    return 1 if stale else 0


def write() -> int:
    """Write the published files."""
    for path, text in documents().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
        print(f"wrote {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
