"""COQL's grammar: a query text becomes a `Query`.

`select … from … where … [order by …] [limit n | limit offset, n] [offset n]`. Conditions are joined in pairs; more
than two need brackets: `((a and b) and c)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sandbox.zoho.errors import ApiError

MAX_LIMIT = 2_000
DEFAULT_LIMIT = 200
MAX_OFFSET = 100_000
MAX_COLUMNS = 500
MAX_CRITERIA = 25
MAX_IN = 100
MAX_ORDER_BY = 10

_TOKEN = re.compile(
    r"\s*(?:(?P<string>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?)|(?P<name>[A-Za-z_$][\w$]*(?:\.[A-Za-z_$][\w$]*)?)"
    r"|(?P<symbol>!=|<=|>=|[=<>(),*]))",
    re.ASCII,
)

Literal = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    at: int


@dataclass(frozen=True, slots=True)
class Condition:
    """`column operator values`; the operator in lower case, `is null` and `is not null` without values."""

    column: str
    operator: str
    values: tuple[Literal, ...] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """Two conditions joined by `and` or `or`."""

    word: str
    left: Condition | Pair
    right: Condition | Pair


Expression = Condition | Pair


@dataclass(frozen=True, slots=True)
class Query:
    columns: tuple[str, ...]
    module: str
    where: Expression
    order_by: tuple[tuple[str, bool], ...]
    limit: int
    offset: int

    @property
    def credits(self) -> int:
        """1 up to 200 rows, 2 up to 1,000, 3 up to 2,000 [v8 api-limits]."""
        return 1 if self.limit <= 200 else 2 if self.limit <= 1_000 else 3


def syntax_error(message: str, *, near: str = "", column: int = 0, clause: str | None = None) -> ApiError:
    """SYNTAX_ERROR: either a clause is missing, or something stands where it must not."""
    details = {"clause": clause} if clause else {"line": 1, "column": column, "near": near}
    return ApiError(400, "SYNTAX_ERROR", message, details)


def invalid_query(message: str = "invalid query formed", **details: object) -> ApiError:
    """INVALID_QUERY: the text is a query, but not one that can be answered."""
    return ApiError(400, "INVALID_QUERY", message, details)


def conditions(node: Expression) -> Iterator[Condition]:
    """Every condition of a where clause."""
    if isinstance(node, Condition):
        yield node
    else:
        yield from conditions(node.left)
        yield from conditions(node.right)


def parse(text: str) -> Query:
    """The query in this text.

    Raises:
        ApiError: SYNTAX_ERROR, INVALID_QUERY or LIMIT_EXCEEDED, as Zoho answers.
    """
    return _Parser(list(_tokens(text))).query()


def _tokens(text: str) -> Iterator[Token]:
    at = 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise syntax_error("invalid query formed", near=text[at : at + 20].strip(), column=at + 1)
        kind = match.lastgroup or ""
        yield Token(kind, match[kind], match.start(kind) + 1)
        at = match.end()
    yield Token("end", "", len(text) + 1)


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0

    def query(self) -> Query:
        self._keyword("select", clause="select")
        columns = self._columns()
        self._keyword("from", clause="from")
        module = self._name()
        self._keyword("where", clause="where")
        where = self._where()
        order_by = self._order_by()
        limit, offset = self._limit()
        if self._next.kind != "end":
            raise self._unexpected()
        return Query(columns, module, where, order_by, limit, offset)

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _unexpected(self) -> ApiError:
        return syntax_error("invalid query formed", near=self._next.text, column=self._next.at)

    def _is_word(self, word: str) -> bool:
        return self._next.kind == "name" and self._next.text.lower() == word

    def _accept_word(self, word: str) -> bool:
        found = self._is_word(word)
        self._at += found
        return found

    def _accept(self, symbol: str) -> bool:
        found = self._next.kind == "symbol" and self._next.text == symbol
        self._at += found
        return found

    def _keyword(self, word: str, *, clause: str) -> None:
        if not self._accept_word(word):
            raise syntax_error("missing clause", clause=clause)

    def _require(self, symbol: str) -> None:
        if not self._accept(symbol):
            raise self._unexpected()

    def _take(self, kind: str) -> str:
        if self._next.kind != kind:
            raise self._unexpected()
        self._at += 1
        return self._tokens[self._at - 1].text

    def _name(self) -> str:
        return self._take("name")

    def _columns(self) -> tuple[str, ...]:
        columns = [self._name()]
        while self._accept(","):
            columns.append(self._name())
        if len(columns) > MAX_COLUMNS:
            raise ApiError(400, "LIMIT_EXCEEDED", "column limit exceeded", {"limit": MAX_COLUMNS, "clause": "select"})
        return tuple(columns)

    def _where(self) -> Expression:
        where = self._expression()
        if sum(1 for _ in conditions(where)) > MAX_CRITERIA:
            raise invalid_query(clause="where", limit=MAX_CRITERIA, reason="criteria limit exceeded")
        return where

    def _expression(self) -> Expression:
        left = self._operand()
        word = next((each for each in ("and", "or") if self._accept_word(each)), None)
        return Pair(word, left, self._operand()) if word else left

    def _operand(self) -> Expression:
        if not self._accept("("):
            return self._condition()
        inner = self._expression()
        self._require(")")
        return inner

    def _condition(self) -> Condition:
        column = self._name()
        if self._next.kind == "symbol" and self._next.text in ("=", "!=", ">", ">=", "<", "<="):
            return Condition(column, self._take("symbol"), (self._literal(),))
        if self._accept_word("is"):
            return self._is_null(column)
        negation = "not " if self._accept_word("not") else ""
        if self._accept_word("in"):
            return Condition(column, f"{negation}in", self._in_values())
        if self._accept_word("like"):
            return Condition(column, f"{negation}like", (self._literal(),))
        if not negation and self._accept_word("between"):
            return self._between(column)
        raise self._unexpected()

    def _is_null(self, column: str) -> Condition:
        operator = "is not null" if self._accept_word("not") else "is null"
        if not self._accept_word("null"):
            raise self._unexpected()
        return Condition(column, operator)

    def _in_values(self) -> tuple[Literal, ...]:
        self._require("(")
        values = [self._literal()]
        while self._accept(","):
            values.append(self._literal())
        self._require(")")
        if len(values) > MAX_IN:
            raise invalid_query(clause="where", operator="in", limit=MAX_IN)
        return tuple(values)

    def _between(self, column: str) -> Condition:
        low = self._literal()
        if not self._accept_word("and"):
            raise self._unexpected()
        return Condition(column, "between", (low, self._literal()))

    def _literal(self) -> Literal:
        token = self._next
        if token.kind == "string":
            value: Literal = token.text[1:-1].replace("''", "'")
        elif token.kind == "number":
            value = float(token.text) if "." in token.text else int(token.text)
        elif token.kind == "name" and token.text.lower() in ("true", "false"):
            value = token.text.lower() == "true"
        else:
            raise self._unexpected()
        self._at += 1
        return value

    def _order_by(self) -> tuple[tuple[str, bool], ...]:
        if not self._accept_word("order"):
            return ()
        if not self._accept_word("by"):
            raise self._unexpected()
        keys = [self._order_key()]
        while self._accept(","):
            keys.append(self._order_key())
        if len(keys) > MAX_ORDER_BY:
            raise ApiError(400, "LIMIT_EXCEEDED", "order by limit exceeded", {"limit": MAX_ORDER_BY})
        return tuple(keys)

    def _order_key(self) -> tuple[str, bool]:
        name = self._name()
        is_descending = self._accept_word("desc")
        if not is_descending:
            self._accept_word("asc")
        return name, is_descending

    def _limit(self) -> tuple[int, int]:
        limit, offset = DEFAULT_LIMIT, 0
        if self._accept_word("limit"):
            limit = self._whole_number()
            if self._accept(","):
                offset, limit = limit, self._whole_number()
        if self._accept_word("offset"):
            offset = self._whole_number()
        if limit > MAX_LIMIT:
            raise ApiError(400, "LIMIT_EXCEEDED", "limit exceeded", {"limit": MAX_LIMIT, "clause": "limit"})
        if offset > MAX_OFFSET:
            raise ApiError(400, "LIMIT_EXCEEDED", "offset exceeded", {"limit": MAX_OFFSET, "clause": "offset"})
        return limit, offset

    def _whole_number(self) -> int:
        text = self._take("number")
        if not text.isdigit():
            raise invalid_query(clause="limit")
        return int(text)
