"""What the checks have in common: how they run, what they say, and where their programs come from."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "checks"


class Failed(Exception):
    """A check did not hold; the text says what and where."""


class Unavailable(Exception):
    """A tool cannot be had here; the text says which."""


def run(title: str, check: Callable[[], str]) -> bool:
    """Run a check and say how it ended.  What is unavailable is a failure only where CI is set."""
    try:
        print(f"{title}: ok: {check()}", flush=True)
    except Failed as error:
        print(f"{title}: FAILED\n{error}", flush=True)
        return False
    except Unavailable as error:
        print(f"{title}: not checked: {error}", flush=True)
        return not os.environ.get("CI")
    return True


def call(*command: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program in the project's folder; `text` goes to its standard input."""
    return subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=False, timeout=600)


def output(*command: str) -> str:
    """What a program prints.  Raises Failed when it does not end with 0."""
    done = call(*command)
    if done.returncode:
        raise Failed(f"{Path(command[0]).name} {command[1]}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def environment(name: str) -> Path:
    """The programs of requirements/NAME.txt, in an environment that is made once for each content of that file."""
    locked = ROOT / "requirements" / f"{name}.txt"
    home = CACHE / f"{name}-{hashlib.sha256(locked.read_bytes()).hexdigest()[:12]}"
    if not home.exists():
        print(f"installing requirements/{name}.txt into .cache/checks", flush=True)
        unfinished = home.with_suffix(".part")
        shutil.rmtree(unfinished, ignore_errors=True)
        uv = str(Path(sys.executable).with_name("uv"))
        made = call(uv, "venv", "--quiet", "--relocatable", str(unfinished))
        options = ("--quiet", "--no-deps", "--require-hashes", "--python", str(unfinished / "bin" / "python"))
        done = made if made.returncode else call(uv, "pip", "install", *options, "-r", str(locked))
        if done.returncode:
            raise Unavailable(f"requirements/{name}.txt cannot be installed: {done.stderr.strip()[-500:]}")
        unfinished.rename(home)
    return home / "bin"
