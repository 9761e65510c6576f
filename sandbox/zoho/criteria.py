r"""The `criteria` language of the search call: `((Last_Name:equals:Burns\,B)and(First_Name:starts_with:M))`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sandbox.zoho.errors import ApiError

OPERATORS = frozenset(
    {
        "equals",
        "not_equal",
        "starts_with",
        "in",
        "greater_than",
        "greater_equal",
        "less_than",
        "less_equal",
        "between",
    }
)
MAX_LENGTH = 3_000
MAX_VALUES = 100


@dataclass(frozen=True, slots=True)
class Criterion:
    """One condition; `in` and `between` have several values."""

    api_name: str
    operator: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Conditions joined by one word."""

    word: str
    items: tuple[Criterion | Group, ...]


Node = Criterion | Group


def query_error(reason: str, api_name: str = "criteria", value: str | None = None) -> ApiError:
    """INVALID_QUERY with the details that the search call gives."""
    details = {"reason": reason, "api_name": api_name}
    return ApiError(400, "INVALID_QUERY", "Invalid query formed", details | ({"value": value} if value else {}))


def parse_criteria(text: str, *, max_criteria: int) -> Node:
    """The conditions as a tree.

    Raises:
        ApiError: the text is no criteria, too long, or has too many of them.
    """
    if len(text) > MAX_LENGTH:
        raise query_error("criteria too long")
    reader = _Reader(text)
    node = reader.group()
    reader.expect_end()
    if sum(1 for _ in leaves(node)) > max_criteria:
        message = f"no of criterium that can be given exceed the limit {max_criteria}"
        raise ApiError(400, "CRITERIA_LIMIT_EXCEEDED", message, {"limit": max_criteria})
    return node


def leaves(node: Node) -> Iterator[Criterion]:
    """Every condition of the tree."""
    if isinstance(node, Criterion):
        yield node
        return
    for item in node.items:
        yield from leaves(item)


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def group(self) -> Node:
        items = [self._bracketed()]
        word = ""
        while (next_word := self._word()) is not None:
            if word and next_word != word:
                raise query_error("and/or must be bracketed")
            word = next_word
            items.append(self._bracketed())
        return items[0] if not word else Group(word, tuple(items))

    def expect_end(self) -> None:
        if self._at != len(self._text):
            raise query_error("unexpected text", value=self._text[self._at :])

    def _bracketed(self) -> Node:
        self._take("(")
        node: Node = self.group() if self._peek("(") else self._criterion()
        self._take(")")
        return node

    def _criterion(self) -> Criterion:
        api_name, operator = self._until_colon(), self._until_colon()
        values = self._values()
        if operator not in OPERATORS:
            raise query_error("operator", api_name, operator)
        expected = {"in": range(1, 10**6), "between": range(2, 3)}.get(operator, range(1, 2))
        if len(values) not in expected:
            raise query_error("value", api_name, ",".join(values))
        if len(values) > MAX_VALUES:
            message = f'Only {MAX_VALUES} values are allowed in "IN" criteria'
            raise ApiError(400, "INVALID_QUERY", message, {"api_name": api_name})
        return Criterion(api_name, operator, tuple(values))

    def _until_colon(self) -> str:
        end = self._text.find(":", self._at)
        if end < 0:
            raise query_error("operator expected")
        part = self._text[self._at : end]
        self._at = end + 1
        return part

    def _values(self) -> list[str]:
        values = [""]
        while self._at < len(self._text) and not self._peek(")"):
            char = self._text[self._at]
            if char == "(":
                raise query_error("unescaped bracket", value=self._text[self._at :])
            if char == ",":
                values.append("")
            else:
                if char == "\\":
                    self._at += 1
                values[-1] += self._text[self._at : self._at + 1]
            self._at += 1
        return values

    def _word(self) -> str | None:
        rest = self._text[self._at :].lower()
        for word in ("and", "or"):
            if rest.lstrip(" ").startswith(word):
                self._at += len(rest) - len(rest.lstrip(" ")) + len(word)
                self._skip_blanks()
                return word
        return None

    def _skip_blanks(self) -> None:
        while self._peek(" "):
            self._at += 1

    def _peek(self, char: str) -> bool:
        return self._text[self._at : self._at + 1] == char

    def _take(self, char: str) -> None:
        if not self._peek(char):
            raise query_error(f"{char} expected", value=self._text[self._at :])
        self._at += 1
