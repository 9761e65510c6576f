"""Where to begin in a partition, and what a commit tells the next owner.

Rules (the contract): a partition with a committed offset goes on there.  A group without offsets begins at
SYNC_MESSAGES_SINCE, or at the end of the topic; that position is committed at once.  A partition that was added after
the group was born begins at its beginning.  Nothing ever jumps: an offset that is out of range halts.

Each commit carries a short text: when the group was born and how many partitions the topic had then, so that a member
that opens its partitions a moment later, or after a crash, knows what its own are; and whether the owner left cleanly.
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

    def text(self) -> str:
        """At most 60 characters."""
        return f"{_VERSION} born={self.born_ms} partitions={self.partitions} clean={int(self.is_clean)}"

    @staticmethod
    def parse(text: str | None) -> CommitNote | None:
        """The note of a commit of ours; None for anybody else's."""
        words = (text or "").split()
        if not words or words[0] != _VERSION:
            return None
        fields = dict(word.partition("=")[::2] for word in words[1:])
        try:
            return CommitNote(int(fields["born"]), int(fields["partitions"]), fields.get("clean") == "1")
        except (KeyError, ValueError):
            return None


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
        return Start(From.OFFSET, offset=mine.offset, may_repeat=not (mine.note and mine.note.is_clean))
    if committed and partition >= note.partitions:
        return Start(From.BEGINNING)
    if since_ms is not None:
        return Start(From.TIME, time_ms=since_ms)
    return Start(From.TIME, time_ms=note.born_ms) if committed else Start(From.END)
