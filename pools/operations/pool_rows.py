"""Add, change and delete pools by their rows; each is checked as in the admin, audited and sent to the broker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from snakepit.pools.broker.errors import BrokerError, DefinitionInvalid, ManagedBySettings, PoolUnknown
from snakepit.pools.broker.spec import FIELDS, InvalidSpec, spec_from
from snakepit.pools.models import Pool, schema
from snakepit.pools.operations import orders
from snakepit.pools.operations.orders import Applies, Change, Order, recorded


def add_pool(broker: Applies, values: Mapping[str, Any], order: Order) -> Change:
    """Add a pool. Raises DefinitionInvalid, whose details name the fields."""
    name = values.get("name")
    with recorded(order, "add_pool", name if isinstance(name, str) else "") as record:
        row = _checked(Pool(), values)
        users = get_user_model()
        row.updated_by = users.objects.filter(**{users.USERNAME_FIELD: order.user}).first() if order.user else None
        try:
            with transaction.atomic(using=schema.alias()):
                row.save(force_insert=True)
        except IntegrityError:  # another request added it since the check
            why = "Pool with this Name already exists."
            raise DefinitionInvalid(f"name: {why}", details={"fields": {"name": why}}) from None
        record.message = _applied(broker, row.name, "add", order)
        in_force = row.enabled and not record.message
        return Change(row.name, row.size, row.paused, True, in_force, record.message)


def change_pool(broker: Applies, name: str, values: Mapping[str, Any], order: Order) -> Change:
    """Change fields of a pool's definition. Raises PoolUnknown, ManagedBySettings, DefinitionInvalid."""
    try:
        row = _of_admin(name)
        if "name" in values:
            why = "cannot be changed: add a pool with the new name, and disable this one"
            raise DefinitionInvalid(f"{name}: name: {why}", details={"fields": {"name": why}})
        _checked(row, values)
    except BrokerError as error:
        orders.refused(order, "change_pool", error, name)
        raise
    return orders.change_pool(broker, name, {field: getattr(row, field) for field in values}, order, "change_pool")


def delete_pool(broker: Applies, name: str, order: Order) -> Change:
    """Delete a pool; its workers end, and its events and jobs stay. Raises PoolUnknown, ManagedBySettings."""
    with recorded(order, "delete_pool", name) as record:
        row = _of_admin(name)
        row.delete()
        record.message = _applied(broker, name, "delete", order)
        return Change(name, 0, row.paused, True, not record.message, record.message)


def _of_admin(name: str) -> Pool:
    row = Pool.objects.filter(name=name).first() if "\0" not in name else None
    if row is None:
        raise PoolUnknown(f"No pool is named {name!r}.", details={"pool": name})
    if row.source == Pool.Source.SETTINGS:
        place = f'SNAKEPIT["POOLS"]["{name}"]'
        raise ManagedBySettings(f"The settings define this pool: change {place}.", details={"line": place})
    return row


def _checked(row: Pool, values: Mapping[str, Any]) -> Pool:
    """Set the values on the row, if all of them are valid together."""
    try:
        spec_from({**{name: getattr(row, name) for name in FIELDS}, **values})
        for name, value in values.items():
            setattr(row, name, value)
        row.full_clean()
    except InvalidSpec as error:
        raise DefinitionInvalid(str(error), details={"fields": error.problems}) from None
    except ValidationError as error:
        problems = {name: " ".join(texts) for name, texts in error.message_dict.items()}
        text = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
        raise DefinitionInvalid(text, details={"fields": problems}) from None
    return row


def _applied(broker: Applies, name: str, action: str, order: Order) -> str:
    """Apply the row now, not at the broker's next poll; return why that failed."""
    try:
        broker.apply(pool=name, action=action, actor=order.actor, reason=order.reason)
    except BrokerError as error:
        return f"Saved, but not in force yet: {error.message}"
    return ""
