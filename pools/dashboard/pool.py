"""One pool: its state, workers as tiles, commands, lifecycle, and the origin of each value of its definition."""

from __future__ import annotations

import json
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import NoReverseMatch, reverse

from snakepit.pools import conf
from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.broker.events import Kind
from snakepit.pools.broker.spec import FIELDS, spec_values
from snakepit.pools.broker.status import CommandInfo, RecordedEvent, WorkerStatus
from snakepit.pools.client import shared
from snakepit.pools.client.cluster_status import MergedPool, WorkerOnNode
from snakepit.pools.dashboard import cluster
from snakepit.pools.dashboard.commands import costs
from snakepit.pools.dashboard.leaks import leak_of
from snakepit.pools.dashboard.page import Visit, page, show
from snakepit.pools.dashboard.pools import PoolRow
from snakepit.pools.dashboard.region import Context, region
from snakepit.pools.dashboard.series import of_charts
from snakepit.pools.dashboard.snippets import order, rest, shell
from snakepit.pools.dashboard.state import DashboardState
from snakepit.pools.models import Event, Pool
from snakepit.pools.operations import all_nodes
from snakepit.pools.web.errors import seen_from_outside
from snakepit.pools.web.last_status import PATIENCE
from snakepit.pools.web.type_text import named_types, result_text

EVENTS = 15
RACES = 10  # pieces of state whose stacks are shown
GONE = 6  # workers that ended recently and are still shown as tiles
GONE_FOR = 120.0  # seconds for which they are shown
AT = "@"  # in a topic: between a pool and the chosen node
SHORT = ("failed", "starting", "degraded")
ENDS = ("worker.died", "worker.killed", "worker.recycled")


@page("pools")
def pool(request: HttpRequest, visit: Visit, name: str) -> HttpResponse:
    row = Pool.objects.filter(name=name).select_related("updated_by").first()
    state = visit.state()
    if row is None and state.shown and state.pool(name) is None and state.totals_of(name) is None:
        raise Http404(f"No pool is named {name}.")
    values, charts = definition(row) if row else [], of_charts(request, state)
    context = {
        "name": name,
        "topic": f"{name}{AT}{charts['node']}" if charts["node"] else name,
        "row": row,
        "edit": _edit_url(row),
        **charts,
        "definition": [one for one in values if one["origin"] != "default"],
        "defaults": [one for one in values if one["origin"] == "default"],
        "snippets": [*rest(request, "GET", f"pools/{name}"), shell("snakepit status"), order("snakepit recycle", name)],
        "races": _races(name),
        "death": _last_death(name, state),
        **_asked(request, name, state, charts["node"]),
    }
    return show(request, visit, "snakepit/pool.html", context)


def _races(name: str) -> list[dict[str, Any]]:
    """The newest race of each piece of state, with both stacks, which only the database has."""
    found: dict[str, dict[str, Any]] = {}
    for event in Event.objects.filter(pool=name, kind=Kind.THREAD_RACE).order_by("-pk")[: 5 * RACES]:
        data = event.data
        sides = [side for side in (data.get("first"), data.get("second")) if side]
        name = data.get("attribute", "")
        found.setdefault(name, {"attribute": name, "at": event.at, "worker": event.worker, "sides": sides})
    return list(found.values())[:RACES]


def _last_death(name: str, state: DashboardState) -> Event | None:
    """How the newest worker died, with its last lines, while the pool is short of workers."""
    found = state.totals_of(name)
    if found is None or found.state not in SHORT:
        return None
    return Event.objects.filter(pool=name, kind=Kind.WORKER_DIED).order_by("-pk").first()


def _asked(request: HttpRequest, name: str, state: DashboardState, node: str) -> Context:
    """Commands and plan, which only this page asks for. A pool that is not running has neither."""
    if state.stale:  # another question would only make the page wait longer
        return {"commands": [], "plan": None, "silence": state.trouble}
    try:
        broker = _broker_of(state, name, node)
        commands, plan = broker.commands(name, PATIENCE), broker.plan(name, timeout=PATIENCE)
        of_node = node_of(state, name, node) if state.cluster else ""
        return {"commands": [_command(request, name, one) for one in commands], "plan": plan, "plan_node": of_node}
    except BrokerError as error:
        return {"commands": [], "plan": None, "silence": seen_from_outside(error).message}


def _broker_of(state: DashboardState, pool: str, node: str) -> Any:
    """The client of the node that the page shows. Raises the error of one that cannot be reached."""
    found = node_of(state, pool, node)
    if state.cluster is None or not found or (state.node is not None and found == state.node.name):
        return shared.client()
    return all_nodes.named(shared.client(), found).client


def node_of(state: DashboardState, pool: str, chosen: str = "") -> str:
    """The node of what cannot be added up: the chosen one, this host, or the first that has the pool; empty: none."""
    hosts = state.hosts_of(pool)
    return chosen if chosen in hosts else next(iter(hosts), "")


def _command(request: HttpRequest, pool: str, command: CommandInfo) -> dict[str, Any]:
    arguments = sample(command.arguments)
    lines = rest(request, "POST", f"pools/{pool}/commands/{command.name}", arguments)
    snippets = [*lines, shell("snakepit call", pool, command.name, json.dumps(arguments))]
    types = list(named_types(command.result))
    return {"command": command, "snippets": snippets, "result": result_text(command), "types": types}


def _edit_url(row: Pool | None) -> str:
    try:
        return reverse("admin:snakepit_pools_pool_change", args=[row.pk]) if row else ""
    except NoReverseMatch:
        return ""


@region("pool", "snakepit/_pool.html")
def overview(state: DashboardState, argument: str) -> Context:
    """`argument`: the name, and after an @ the node of what cannot be added up."""
    name, _, chosen = argument.partition(AT)
    hosts, node = state.hosts_of(name), node_of(state, name, chosen)
    found, totals = hosts[node].pool(name) if node else None, state.totals_of(name)
    if found is None or totals is None:
        return {"pool": None, "name": name, "cluster": state.cluster}
    workers, limit = hosts[node].workers_of(name), state.stored.soft_limits.get(name)
    row, used = PoolRow.of(state, totals), found.usage
    served = max(0, used.answered - used.refused - used.timed_out)  # `answered` includes calls that got no slot
    return {
        "pool": found,
        "kind": row.kind,
        "rate": row.rate,
        "name": name,
        "totals": totals,
        "node": node if state.cluster else "",
        "tiles": [WorkerOnNode(at, one) for at, host in hosts.items() for one in host.workers_of(name)],
        "gone": _just_ended(state, name),
        "recycled": sorted(state.recycled(name).items()),
        "costs": costs(found),
        "served": served,
        "served_rate": served / used.seconds if used.seconds else None,
        "pythons": sorted({f"{worker.python}, GIL {worker.gil}" for worker in workers if worker.python}),
        "next": min((one for one in workers if one.due_in is not None), key=_due_in, default=None),
        "leak": leak_of(found, workers, limit),
        "limit": limit,
        "drained": totals.state == "paused" and not totals.busy and not totals.waiting,
    }


def _due_in(worker: WorkerStatus) -> float:
    return worker.due_in or 0.0


region("pool-nodes", "snakepit/_pool_nodes.html")(cluster.of_pool)


@region("pool-events", "snakepit/_pool_events.html")
def happened(state: DashboardState, name: str) -> Context:
    return {"events": state.events_of(pool=name)[:EVENTS], "name": name}


@region("pool-orders", "snakepit/_pool_orders.html")
def orders(state: DashboardState, name: str) -> Context:
    found = state.totals_of(name)
    paused = found is not None and (found.paused if isinstance(found, MergedPool) else found.state == "paused")
    return {"pool": found, "name": name, "paused": paused}


def _just_ended(state: DashboardState, name: str) -> list[RecordedEvent]:
    """Workers that left in the last two minutes, with the reason, so that the page shows why a tile is gone."""
    present = {one.worker.id for one in state.all_workers}
    ended: dict[str, RecordedEvent] = {}
    for event in state.events_of(pool=name):
        if event.at > state.at - GONE_FOR and event.kind in ENDS and event.worker not in present:
            ended.setdefault(event.worker, event)
    return list(ended.values())[:GONE]


def definition(row: Pool) -> list[dict[str, Any]]:
    """Every value in force and its origin: the settings, the row, or the default."""
    given = _given(row)
    rows = []
    for name, spec_field in FIELDS.items():
        if name == "name":
            continue
        value, default = getattr(row, name), _default(name)
        origin, note = "row", ""
        if name in given:
            origin = "settings"
            if given[name] != value:
                origin, note = "row", f"the settings have {given[name]}"
        elif value == default:
            origin = "default"
        unit = spec_field.metadata.get("unit", "")
        rows.append({
            "name": name, "value": _text(value), "unit": unit, "origin": origin, "note": note,
            "help": spec_field.metadata["help"],
        })  # fmt: skip
    return rows


def _text(value: Any) -> Any:
    """A value of a definition for a reader: a list of nodes or names without the marks of Python."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "off" if value is None else value


def _given(row: Pool) -> dict[str, Any]:
    """The fields that the settings set for this pool."""
    if row.source != Pool.Source.SETTINGS:
        return {}
    try:
        spec = next((spec for spec in conf.pool_specs() if spec.name == row.name), None)
    except ImproperlyConfigured:
        return {}
    named = conf.current().pools.get(row.name, {})
    return {name: value for name, value in spec_values(spec).items() if name in named} if spec else {}


def _default(name: str) -> Any:
    if name == "size":
        return conf.default_size()
    column: Any = Pool._meta.get_field(name)
    return column.get_default()


SAMPLES = {"integer": 10, "number": 1.0, "string": "text", "boolean": True, "array": [], "object": {}}


def sample(schema: dict[str, Any]) -> dict[str, Any]:
    """The required arguments with a value of the right type each.

    >>> sample({"properties": {"text": {"type": "string"}, "limit": {"type": "integer"}}, "required": ["text"]})
    {'text': 'text'}
    """
    properties = schema.get("properties", {})
    return {name: _value(properties.get(name, {})) for name in schema.get("required", ())}


def _value(schema: dict[str, Any]) -> Any:
    if schema.get("examples"):
        return schema["examples"][0]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    return SAMPLES.get(kind if isinstance(kind, str) else "")
