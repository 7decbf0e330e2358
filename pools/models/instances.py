"""Make many instances that share most columns: `Model.__init__` sets each of fifty, which takes longer than a row.

Receivers of Django's `pre_init` and `post_init` still get each instance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from django.db.models import Model
from django.db.models.base import ModelState
from django.db.models.signals import post_init, pre_init

M = TypeVar("M", bound=Model)


def maker(model: type[M], shared: Mapping[str, Any], *, stored_in: str | None) -> Callable[[Mapping[str, Any]], M]:
    """What makes an instance of `shared` columns and its own ones, by attname. A column in neither is read when used.

    `stored_in`: the database that has the rows; None: they are new.
    """
    adding = stored_in is None

    def make(own: Mapping[str, Any]) -> M:
        made = model.__new__(model)
        state = ModelState()
        state.adding, state.db = adding, stored_in
        made.__dict__.update(shared, _state=state, **own)
        return made

    def make_with_signals(own: Mapping[str, Any]) -> M:
        values = {**shared, **own}
        names = [field.attname for field in model._meta.concrete_fields if field.attname in values]
        made = model.from_db(stored_in, names, [values[name] for name in names])
        made._state.adding = adding
        return made

    return make_with_signals if pre_init.has_listeners(model) or post_init.has_listeners(model) else make
