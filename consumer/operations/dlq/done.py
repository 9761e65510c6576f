"""Which dead letters have been dealt with: a prefix of each partition, and single runs beyond it.

A replay of one reason leaves holes.  Kafka stores one number for a partition, so the runs beyond the first hole travel
in the text beside the committed offset (a broker takes 4,096 bytes, `offset.metadata.max.bytes`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

_VERSION = "zr1"
_MAX_TEXT = 3500


class Done:
    """Offsets of one partition that are dealt with: all below `prefix`, and some beyond."""

    __slots__ = ("_runs", "prefix")

    def __init__(self, prefix: int = 0) -> None:
        self.prefix = prefix
        self._runs: list[tuple[int, int]] = []
        """Closed intervals in order, apart from each other, all beyond the prefix."""

    def __contains__(self, offset: int) -> bool:
        if offset < self.prefix:
            return True
        index = bisect_right(self._runs, (offset, 1 << 62)) - 1
        return index >= 0 and self._runs[index][0] <= offset <= self._runs[index][1]

    def add(self, first: int, last: int | None = None) -> None:
        """Offsets `first` to `last`, both included, are dealt with."""
        last = first if last is None else last
        if last < first:
            return
        begin = bisect_left(self._runs, (first, first))
        if begin and self._runs[begin - 1][1] >= first - 1:
            begin -= 1
        end = begin
        while end < len(self._runs) and self._runs[end][0] <= last + 1:
            first, last = min(first, self._runs[end][0]), max(last, self._runs[end][1])
            end += 1
        self._runs[begin:end] = [(first, last)]
        self._absorb()

    def begin_at(self, offset: int) -> None:
        """What lies before this offset is gone from the topic."""
        self.prefix = max(self.prefix, offset)
        self._absorb()

    def _absorb(self) -> None:
        """The prefix swallows the runs that it reaches."""
        while self._runs and self._runs[0][0] <= self.prefix:
            self.prefix = max(self.prefix, self._runs.pop(0)[1] + 1)

    @property
    def has_holes(self) -> bool:
        """Is something dealt with beyond what is not?"""
        return bool(self._runs)

    def is_kept_in(self, offset: int, text: str | None) -> bool:
        """Would a later run know all of it from a committed offset and its text?"""
        kept = Done.parse(offset, text)
        return kept.prefix >= self.prefix and all(
            number in kept for first, last in self._runs for number in (first, last)
        )

    @staticmethod
    def is_note(text: str | None) -> bool:
        """Is it a text of ours?  Each commit of ours has one; a broker that keeps none gives back an empty one."""
        return (text or "").startswith(_VERSION)

    def text(self) -> str:
        """The runs, relative to the prefix.  What finds no room is left out, and would be replayed once more."""
        words, size = [], len(_VERSION)
        for first, last in self._runs:
            word = f"{first - self.prefix}-{last - self.prefix}"
            size += len(word) + 1
            if size > _MAX_TEXT:
                break
            words.append(word)
        return " ".join([_VERSION, *words])

    @staticmethod
    def parse(offset: int, text: str | None) -> Done:
        """From a committed offset and its text; a text that is not ours holds no runs."""
        done = Done(offset)
        version, *words = (text or "").split() or [""]
        for word in words if version == _VERSION else ():
            first, _, last = word.partition("-")
            if first.isdecimal() and last.isdecimal():
                done.add(offset + int(first), offset + int(last))
        return done
