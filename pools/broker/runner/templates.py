"""The template processes of one pool: starts them, forks workers from them, ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from snakepit.pools.broker.ports import Exit, ForkFailed, Launcher, LaunchOrder, Process, Template, TemplateOrder


class TemplateObserver(Protocol):
    """What a runner receives about its templates."""

    def template_loaded(self, name: str, seconds: float) -> None: ...

    def template_refused(self, name: str, reason: str, why: str) -> None: ...

    def template_ended(self, name: str, exit: Exit, evidence: str) -> None: ...


@dataclass(slots=True, eq=False)
class NamedReports:
    """Passes on what the launcher reports of one template, with the template's name."""

    name: str
    templates: Templates

    def loaded(self, seconds: float) -> None:
        self.templates.observer.template_loaded(self.name, seconds)

    def refused(self, reason: str, why: str) -> None:
        self.templates.observer.template_refused(self.name, reason, why)

    def ended(self, exit: Exit) -> None:
        self.templates.ended(self.name, exit)


class Templates:
    """The current template of a pool, and outdated ones that are about to end."""

    def __init__(self, launcher: Launcher, observer: TemplateObserver) -> None:
        self.observer = observer
        self._launcher = launcher
        self._processes: dict[str, Template | None] = {}  # None: the process does not exist yet
        self._stopped: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, order: TemplateOrder) -> None:
        self._processes[order.template] = None
        task = asyncio.get_running_loop().create_task(self._start(order), name=f"prepare {order.template}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, order: TemplateOrder) -> None:
        name = order.template
        try:
            template = await self._launcher.prepare(order, NamedReports(name, self))
        except Exception as error:
            self.observer.template_refused(name, "load_failed", f"the template could not be started: {error}")
            self.ended(name, Exit())
            return
        self._processes[name] = template
        if name in self._stopped:
            template.dismiss()

    def stop(self, name: str) -> None:
        if name in self._processes:
            self._stopped.add(name)
        if template := self._processes.get(name):
            template.dismiss()

    def ended(self, name: str, exit: Exit) -> None:
        template = self._processes.pop(name, None)
        self._stopped.discard(name)
        output = "\n".join(template.output()[-20:]) if template else ""
        self.observer.template_ended(name, exit, output)

    async def launch(self, name: str, order: LaunchOrder, on_exit: Callable[[Exit], None]) -> Process:
        """Fork a new worker from the template of this name, or spawn it if there is no name."""
        if not name:
            return await self._launcher.launch(order, on_exit)
        template = self._processes.get(name)
        if template is None:
            raise ForkFailed("its template has ended")
        return await self._launcher.fork(template, order, on_exit)

    @property
    def is_empty(self) -> bool:
        return not self._processes

    def living(self) -> Iterable[tuple[str, Template]]:
        return [(name, template) for name, template in self._processes.items() if template]

    def get(self, name: str) -> Template | None:
        return self._processes.get(name)
