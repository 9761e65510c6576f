"""Look for what must not be shipped: `make audit`.  Dangerous code, secrets, licences, known vulnerabilities.

The last needs a database from the network.  Where that cannot be reached nothing was audited, and that is a failure,
not a pass; `--offline` leaves it out and says so.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from importlib import metadata
from typing import TYPE_CHECKING

from tools.checks import ROOT, Failed, call, environment, run

if TYPE_CHECKING:
    from collections.abc import Callable

# Licences under which everything of the image may be used and passed on.
FREE = re.compile(
    r"\b(MIT|BSD|Apache|ISC|PSF|MPL|Unlicense|Zlib|0BSD|CNRI-Python|Python Software Foundation)", re.IGNORECASE
)
NOT_FREE = re.compile(r"\b(A?GPL|SSPL|BUSL|Commercial|Proprietary)", re.IGNORECASE)
# Hashes of pinned packages and of scripts in pages, ids of Zoho's metadata, and made-up events.
NOT_SECRET = (
    "--exclude-files",
    r"^(requirements/|schemas/samples/)",
    "--exclude-lines",
    "integrity=|sha(256|384|512)-|ezgid",
)


def main() -> int:
    """Run every check; 0 when all held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--offline", action="store_true", help="leave out what needs the network, and say so")
    checks: list[Callable[[], str]] = [code, secrets, licences]
    if parser.parse_args().offline:
        print("audit: vulnerabilities: NOT AUDITED (--offline)")
    else:
        checks.append(vulnerabilities)
    outcomes = [run(f"audit: {check.__name__}", check) for check in checks]
    return 0 if all(outcomes) else 1


def code() -> str:
    """bandit on what is shipped; the linter has its rules too, this is the second opinion."""
    # B104: probes and scrapers come from outside the pod, so the default address is every one.
    options = ("--severity-level", "medium", "--confidence-level", "medium", "--skip", "B104", "--format", "json")
    done = call(str(environment("checks") / "bandit"), "--quiet", "--recursive", *options, "consumer", "schemas")
    report = json.loads(done.stdout)
    found = [f"{each['filename']}:{each['line_number']}: {each['issue_text']}" for each in report["results"]]
    lines = report["metrics"]["_totals"]["loc"]
    if found or report["errors"] or not lines:
        raise Failed("\n".join([*found, *map(str, report["errors"])]) or "bandit saw no code")
    return f"bandit has nothing to say about {lines} lines"


def secrets() -> str:
    """detect-secrets on every file of the repository; by entropy and shape, for the word alone is everywhere here."""
    names = [name for name in call("git", "ls-files", "-z").stdout.split("\0") if (ROOT / name).is_file()]
    done = call(
        *(str(environment("checks") / "detect-secrets"), "scan", "--disable-plugin", "KeywordDetector"),
        *(*NOT_SECRET, *names),
    )
    results = json.loads(done.stdout)["results"]
    if results:
        raise Failed(
            "\n".join(f"{name}:{each['line_number']}: {each['type']}" for name in results for each in results[name])
        )
    return f"none in {len(names)} files"


def licences() -> str:
    """Every package of the image is under a licence that lets it be used and passed on."""
    locked = (ROOT / "requirements" / "run.txt").read_text("utf-8")
    names = re.findall(r"^([a-z0-9-]+)==(?!.*sys_platform == 'win32')", locked, re.MULTILINE)
    found = {name: licence for name in names if (licence := _licence(name)) is not None}
    if bad := {name: text for name, text in found.items() if NOT_FREE.search(text) or not FREE.search(text)}:
        raise Failed("\n".join(f"{name}: {text or 'says nothing'}" for name, text in bad.items()))
    for name, text in found.items():
        print(f"  {name}: {text}")
    return f"{len(found)} of {len(names)} locked packages are installed here, all of them free to use"


def _licence(name: str) -> str | None:
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    classifiers = [each.rpartition(" :: ")[2] for each in about.get_all("Classifier", []) if each.startswith("License")]
    stated = next(filter(None, [about["License-Expression"], "; ".join(classifiers), about["License"]]), "")
    return stated.splitlines()[0] if stated else ""


def vulnerabilities() -> str:
    """pip-audit on the locked packages; one that cannot be audited is a failure."""
    options = ("--strict", "--disable-pip", "--require-hashes", "--progress-spinner", "off")
    done = call(str(environment("checks") / "pip-audit"), *options, "--requirement", "requirements/run.txt")
    if done.returncode:
        raise Failed((done.stdout + done.stderr).strip()[-2000:])
    return done.stderr.strip() or "no known vulnerability"


if __name__ == "__main__":
    sys.exit(main())
