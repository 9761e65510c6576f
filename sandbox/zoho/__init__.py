"""A strict, deterministic stand-in for Zoho CRM v8 and Zoho Accounts."""

from sandbox.zoho.config import Chaos, SandboxConfig
from sandbox.zoho.engine import InFlight, ZohoEngine
from sandbox.zoho.faults import (
    Answer,
    Drop,
    FailRow,
    Fault,
    Garble,
    LateEffect,
    Match,
    Meddle,
    Slow,
    Throttle,
)
from sandbox.zoho.journal import CallEntry, Effect, Violation
from sandbox.zoho.model import DropKind, Request, Response

__all__ = [
    "Answer",
    "CallEntry",
    "Chaos",
    "Drop",
    "DropKind",
    "Effect",
    "FailRow",
    "Fault",
    "Garble",
    "InFlight",
    "LateEffect",
    "Match",
    "Meddle",
    "Request",
    "Response",
    "SandboxConfig",
    "Slow",
    "Throttle",
    "Violation",
    "ZohoEngine",
]
