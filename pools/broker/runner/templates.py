"""The runner's hands for templates: prepares them, forks workers from them, ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from snakepit.pools.broker.ports import Exit, Launcher, LaunchOrder, Process, Template, TemplateOrder, Unforked


class Ear(Protocol):
    """What a runner hears of its templates."""

    def template_loaded(self, name: str, seconds: float) -> None: ...

    def template_refused(self, name: str, reason: str, why: str) -> None: ...

    def template_ended(self, name: str, exit: Exit, evidence: str) -> None: ...


@dataclass(slots=True, eq=False)
class Reports:
    """What the launcher tells of one template, with its name."""

    name: str
    templates: Templates

    def loaded(self, seconds: float) -> None:
        self.templates.ear.template_loaded(self.name, seconds)

    def refused(self, reason: str, why: str) -> None:
        self.templates.ear.template_refused(self.name, reason, why)

    def ended(self, exit: Exit) -> None:
        self.templates.ended(self.name, exit)


class Templates:
    """The templates of one pool that live: the current one, and outdated ones that are about to end."""

    def __init__(self, launcher: Launcher, ear: Ear) -> None:
        self.ear = ear
        self._launcher = launcher
        self._templates: dict[str, Template | None] = {}  # None: its process is not there yet
        self._dismissed: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def prepare(self, order: TemplateOrder) -> None:
        self._templates[order.template] = None
        task = asyncio.get_running_loop().create_task(self._prepare(order), name=f"prepare {order.template}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _prepare(self, order: TemplateOrder) -> None:
        name = order.template
        try:
            template = await self._launcher.prepare(order, Reports(name, self))
        except Exception as error:
            self.ear.template_refused(name, "load_failed", f"the template could not be started: {error}")
            self.ended(name, Exit())
            return
        self._templates[name] = template
        if name in self._dismissed:
            template.dismiss()

    def dismiss(self, name: str) -> None:
        if name in self._templates:
            self._dismissed.add(name)
        if template := self._templates.get(name):
            template.dismiss()

    def ended(self, name: str, exit: Exit) -> None:
        template = self._templates.pop(name, None)
        self._dismissed.discard(name)
        words = "\n".join(template.output()[-20:]) if template else ""
        self.ear.template_ended(name, exit, words)

    async def bring(self, name: str, order: LaunchOrder, on_exit: Callable[[Exit], None]) -> Process:
        """A new worker, out of the template of this name, or spawned where there is no name."""
        if not name:
            return await self._launcher.launch(order, on_exit)
        template = self._templates.get(name)
        if template is None:
            raise Unforked("its template has ended")
        return await self._launcher.fork(template, order, on_exit)

    def kill(self) -> None:
        for template in tuple(self._templates.values()):
            if template:
                template.kill()

    @property
    def is_empty(self) -> bool:
        return not self._templates

    def living(self) -> Iterable[tuple[str, Template]]:
        return [(name, template) for name, template in self._templates.items() if template]

    def get(self, name: str) -> Template | None:
        return self._templates.get(name)
