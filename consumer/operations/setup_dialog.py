"""The conversation around `setup`: the plan, the question, each step as it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from consumer.core.errors import SyncError
from consumer.operations import setup
from consumer.operations.doctor.environment import ZOHO
from consumer.operations.errors import OperationError
from consumer.operations.texts import phrase, text_of
from consumer.operations.zoho_desk import zoho_desk

if TYPE_CHECKING:
    from consumer.operations.setup import SetupPlan, Step
    from consumer.operations.terminal import Terminal
    from consumer.settings import Settings


async def set_up(terminal: Terminal, settings: Settings, *, is_dry: bool, is_agreed: bool) -> None:
    """Plan, ask, do.  Raises OperationError."""
    missing = [name for name in ZOHO if not settings.secret(name).get()]
    if missing:
        raise OperationError("zoho.not_set", names=", ".join(missing))
    async with zoho_desk(settings) as desk:
        try:
            found = await setup.plan(desk, settings.zoho_messages_module)
            _show_plan(terminal, found, is_dry=is_dry)
            if is_dry or not found.steps or not _may_begin(terminal, is_agreed=is_agreed):
                return
            await setup.carry_out(desk, found, on_step=lambda step: _show_step(terminal, found, step, is_done=True))
        except SyncError as error:
            raise setup.failure(error) from None
    terminal.note(phrase(terminal.lang, "setup.done"), style="green")


def _may_begin(terminal: Terminal, *, is_agreed: bool) -> bool:
    """Somebody who can be asked is asked; a pipe has decided already."""
    if is_agreed or not terminal.is_asking_possible:
        return True
    return typer.confirm(phrase(terminal.lang, "setup.confirm"), err=True)


def _show_plan(terminal: Terminal, found: SetupPlan, *, is_dry: bool) -> None:
    lang = terminal.lang
    if terminal.is_json:
        terminal.json(plan_json(found))
        return
    terminal.line(phrase(lang, "setup.plan" if found.steps else "setup.nothing", name=found.module), style="bold")
    for step in found.steps:
        _show_step(terminal, found, step, is_done=False)
    for item in found.by_hand:
        text = text_of(lang, item.code, item.facts)
        terminal.line(f"! {text.what}", style="yellow")
        for part in filter(None, (text.why, text.fix and f"→ {text.fix}")):
            terminal.line(f"    {part}")
    if is_dry:
        terminal.note(phrase(lang, "setup.dry"))


def _show_step(terminal: Terminal, found: SetupPlan, step: Step, *, is_done: bool) -> None:
    if terminal.is_json:
        return
    kind = step.spec.data_type if step.spec else ""
    text = phrase(terminal.lang, f"setup.step.{step.kind}", name=step.name, module=found.module, type=kind)
    terminal.line(f"{'✓' if is_done else '+'} {text}", style="green" if is_done else None)


def plan_json(found: SetupPlan) -> dict[str, Any]:
    """For machines."""
    return {
        "module": found.module,
        "steps": [{"kind": step.kind, "name": step.name} for step in found.steps],
        "by_hand": [{"code": item.code, **item.facts} for item in found.by_hand],
    }
