"""How commands speak: rich tables in a terminal, plain lines in a pipe, one JSON object for machines.

What was asked for goes to standard output; questions, progress and errors go to standard error.  Whoever asked for JSON
gets it on standard output in any case: the answer, or the error in its place.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from consumer.operations.texts import Lang, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from consumer.operations.errors import OperationError

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}


class Terminal:
    """Standard output and standard error of one command."""

    def __init__(self, lang: Lang = "en", *, is_json: bool = False) -> None:
        self.lang = lang
        self.is_json = is_json
        self.out = Console(highlight=False, soft_wrap=True)
        self.err = Console(stderr=True, highlight=False, soft_wrap=True)

    @property
    def is_rich(self) -> bool:
        """Does a person look at standard output?"""
        return self.out.is_terminal and not self.is_json

    @property
    def is_asking_possible(self) -> bool:
        """Can somebody answer a question?"""
        return sys.stdin.isatty() and self.err.is_terminal

    def line(self, text: str = "", *, style: str | None = None) -> None:
        """One line of the answer; in a terminal it is broken between words, and keeps its indentation."""
        _print(self.out, text, style)

    def note(self, text: str = "", *, style: str | None = None) -> None:
        """One line beside the answer."""
        self.err.print(escape(text), style=style)

    def json(self, value: Any) -> None:
        """The answer for machines."""
        sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, styles: Sequence[str] = ()) -> None:
        """A table, or its rows as lines with tabs between the cells.  `styles`: one for each row."""
        if not self.is_rich:
            for row in rows:
                sys.stdout.write("\t".join(" ".join(cell.split()) for cell in row) + "\n")
            return
        table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
        for name in columns:
            table.add_column(name, overflow="fold")
        for number, row in enumerate(rows):
            table.add_row(*map(escape, row), style=styles[number] if number < len(styles) else None)
        self.out.print(table, soft_wrap=False)

    def error(self, error: OperationError) -> None:
        """What happened, why it hurts, and the next step; for machines that is the answer."""
        text = text_of(self.lang, error.code, error.facts)
        if self.is_json:
            facts = {name: str(value) for name, value in error.facts.items()}
            self.json({"error": {"code": error.code, **text._asdict(), "facts": facts}})
            return
        self.note(text.what, style=_STYLES["failed"])
        for part in filter(None, (text.why, text.fix and f"→ {text.fix}")):
            _print(self.err, f"  {part}", None)

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A bar in a terminal, nothing elsewhere; the function takes done and total."""
        if not self.err.is_terminal or self.is_json:
            yield lambda _done, _total: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.err, transient=True) as bars:
            task = bars.add_task(what, total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)


def _print(console: Console, text: str, style: str | None) -> None:
    if not console.is_terminal:
        console.file.write(text + "\n")
        return
    words = text.lstrip()
    console.print(Padding(Text(words), (0, 0, 0, len(text) - len(words))), style=style, soft_wrap=False)


def style_of(status: str) -> str:
    """Colour of a row."""
    return _STYLES.get(status, "")
