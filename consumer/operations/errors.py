"""What went wrong in a command, by a code under which the catalogue has the words."""

from __future__ import annotations

from typing import Any


class OperationError(Exception):
    """A command cannot go on.  `code` names an entry of `texts`; `facts` fill its gaps and hold no secret."""

    def __init__(self, code: str, /, **facts: Any) -> None:
        super().__init__(" ".join([code, *(f"{name}={value}" for name, value in facts.items())]))
        self.code = code
        self.facts = facts
