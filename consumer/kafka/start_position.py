"""Where to begin in a partition, and what a commit tells the next owner.

Rules (the contract): a partition with a committed offset goes on there.  A group without offsets begins at
SYNC_MESSAGES_SINCE, or at the end of the topic; that position is committed at once.  A partition that was added after
the group was born begins at its beginning.  Nothing ever jumps: an offset that is out of range halts.

Each commit carries a short text: when the group was born and how many partitions the topic had then, so that a member
that opens its partitions a moment later, or after a crash, knows what its own are; whether the owner left cleanly; and
whether the partition was halted there because its records are gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

_VERSION = "zs1"


@dataclass(frozen=True, slots=True)
class CommitNote:
    """The text beside a committed offset."""

    born_ms: int
    partitions: int
    is_clean: bool = False
    """Nothing beyond the offset was handed out: its records cannot have been written by the last owner."""
    is_halted: bool = False
    """The offset was out of range.  It stays so until an operator sets another: a topic that was emptied and grew past
    it again would make it look right, and its records would be skipped."""

    def text(self) -> str:
        """At most 70 characters."""
        words = f"{_VERSION} born={self.born_ms} partitions={self.partitions} clean={int(self.is_clean)}"
        return f"{words} halted=1" if self.is_halted else words

    @staticmethod
    def parse(text: str | None) -> CommitNote | None:
        """The note of a commit of ours; None for anybody else's."""
        words = (text or "").split()
        if not words or words[0] != _VERSION:
            return None
        fields = dict(word.partition("=")[::2] for word in words[1:])
        try:
            born_ms, partitions = int(fields["born"]), int(fields["partitions"])
        except (KeyError, ValueError):
            return None
        return CommitNote(born_ms, partitions, fields.get("clean") == "1", fields.get("halted") == "1")


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed offset and its note."""

    offset: int
    note: CommitNote | None = None


class From(Enum):
    """Kinds of beginning."""

    OFFSET = auto()
    BEGINNING = auto()
    TIME = auto()
    END = auto()


@dataclass(frozen=True, slots=True)
class Start:
    """Where to begin; `may_repeat`: an earlier owner may have written records from there on."""

    kind: From
    offset: int | None = None
    time_ms: int | None = None
    may_repeat: bool = False
    is_halted: bool = False
    """An earlier owner found that the records there are gone."""


def group_note(committed: dict[int, Committed], *, partitions: int, now_ms: int) -> CommitNote:
    """The note of this group: as its oldest commit has it, or of a group born now."""
    notes = [found.note for found in committed.values() if found.note is not None]
    if notes:
        oldest = min(notes, key=lambda note: note.born_ms)
        return CommitNote(oldest.born_ms, oldest.partitions)
    return CommitNote(now_ms, 0 if committed else partitions)


def start_of(partition: int, committed: dict[int, Committed], note: CommitNote, *, since_ms: int | None) -> Start:
    """Where this member begins; `committed` are the group's offsets of the whole topic, by partition."""
    mine = committed.get(partition)
    if mine is not None:
        return Start(
            From.OFFSET,
            offset=mine.offset,
            may_repeat=not (mine.note and mine.note.is_clean),
            is_halted=bool(mine.note and mine.note.is_halted),
        )
    if committed and partition >= note.partitions:
        return Start(From.BEGINNING)
    if since_ms is not None:
        return Start(From.TIME, time_ms=since_ms)
    return Start(From.TIME, time_ms=note.born_ms) if committed else Start(From.END)
