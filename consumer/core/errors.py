"""Everything that can go wrong, grouped by what the caller can do about it."""

from __future__ import annotations

from dataclasses import dataclass


class SyncError(Exception):
    """Root of the tree.  `code` is stable and free of personal data; so is the text."""

    def __init__(self, code: str, text: str = "") -> None:
        super().__init__(f"{code}: {text}" if text else code)
        self.code = code
        self.text = text


class TransientError(SyncError):
    """Try again later.

    `wrote_maybe`: the effect may have happened although the answer is lost, so look before repeating a write.
    `late_s`: for how long it may still come; 0 when Zoho answered, whatever it said, None when nobody knows.
    """

    def __init__(
        self,
        code: str,
        text: str = "",
        *,
        wrote_maybe: bool = False,
        retry_after_s: float | None = None,
        late_s: float | None = None,
    ) -> None:
        super().__init__(code, text)
        self.wrote_maybe = wrote_maybe
        self.retry_after_s = retry_after_s
        self.late_s = late_s


class ThrottledError(TransientError):
    """Zoho asks for fewer calls; nothing was written."""


class NotWantedError(TransientError):
    """Nobody wanted the call any more when its turn came: it was not sent."""

    def __init__(self) -> None:
        super().__init__("NOT_WANTED_ANY_MORE")


class HaltedError(SyncError):
    """A cause outside any one message: wait and say so until somebody removes it.

    `advice` is one plain sentence for the operator.
    """

    def __init__(self, code: str, text: str = "", *, advice: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(code, text)
        self.advice = advice
        self.retry_after_s = retry_after_s


class RefusedError(SyncError):
    """Zoho refuses this call as a whole: its content is at fault, repeating it is useless.

    `is_unknown`: the code is in no table, so whose fault it is remains to be seen.
    """

    def __init__(self, code: str, text: str = "", *, field: str | None = None, is_unknown: bool = False) -> None:
        super().__init__(code, text)
        self.field = field
        self.is_unknown = is_unknown


class TokenRefusedError(SyncError):
    """The access token is not accepted; a new one may be."""

    token = ""
    """Which one; in no text."""


class DeadLetterError(SyncError):
    """The dead-letter topic did not take the record; the offset must stay."""


class CommitLostError(SyncError):
    """The partition belongs to somebody else by now: drop what was settled here, the new owner reads it again."""


@dataclass(frozen=True, slots=True)
class Halt:
    """Why work waits, for readiness, metrics and console."""

    code: str
    advice: str
    since: float
    holds_up: tuple[str, ...] = ()
    """Kinds of calls, or partitions; empty: everything."""
