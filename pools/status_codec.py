"""The status in protobuf: writes the messages that the broker sends, and reads those that the client receives.

    broker ─▶ BrokerStatus ─▶ encode_status ─▶ StatusReply ─▶ decode_status ─▶ BrokerStatus ─▶ client

Fields have the same names on both sides. An optional field that is not set is None.

>>> from snakepit.pools.wire.broker_pb2 import RunningCall as Message
>>> decode(RunningCall, Message(id="call-1", seconds=0.1234567))
RunningCall(id='call-1', command='', seconds=0.123457, remaining=0.0)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache, partial
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from google.protobuf.message import Message

from snakepit.pools.broker.caller import QuotaStatus
from snakepit.pools.broker.status import (
    BrokerStatus,
    CommandInfo,
    NodeStatus,
    PoolHistograms,
    PoolStatus,
    RecordedEvent,
    RecyclePlan,
    RunningCall,
    SweepResult,
    WorkerDump,
    WorkerStatus,
    as_json,
)
from snakepit.pools.wire import broker_pb2 as pb
from snakepit.workers.report import utf8
from snakepit.workers.wire import worker_pb2

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Value = TypeVar("Value", bound=DataclassInstance)
else:
    Value = TypeVar("Value")

MAX_MESSAGE = 1000  # characters of an event's message
DIGITS = 6  # of a float: what JSON shows is not longer than what was measured

__all__ = ["RunningCall", "decode", "decode_commands", "decode_dump", "decode_plan", "decode_status", "decode_sweep",
           "encode_commands", "encode_dump", "encode_plan", "encode_status", "encode_sweep"]  # fmt: skip


# Writing


def encode_status(status: BrokerStatus) -> pb.StatusReply:
    try:
        return _encode_status(status, as_json)
    except UnicodeEncodeError:  # a path of a locale that is not UTF-8; checking each text every time would cost more
        return _encode_status(status, _encodable)


def _encode_status(status: BrokerStatus, plain: Callable[[Any], Any]) -> pb.StatusReply:
    reply = pb.StatusReply(
        node=pb.Node(**plain(status.node)),
        pools=[pb.Pool(**plain(pool)) for pool in status.pools],
        workers=[pb.Worker(**plain(worker)) for worker in status.workers],
    )
    for event in status.events:
        values = plain(event)
        del values["node"]  # the status has it once
        reply.events.add(**{**values, "message": values["message"][:MAX_MESSAGE]})
    for pool, histograms in status.histograms.items():
        reply.histograms.add(pool=pool, **plain(histograms))
    reply.quotas.extend(pb.Quota(**plain(quota)) for quota in status.quotas)
    return reply


def _encodable(value: Any) -> Any:
    """As `as_json`, with text that protobuf accepts."""
    return _each_text(as_json(value))


def _each_text(value: Any) -> Any:
    if isinstance(value, str):
        return utf8(value)
    if isinstance(value, dict):
        return {key: _each_text(one) for key, one in value.items()}
    return [_each_text(one) for one in value] if isinstance(value, list) else value


def encode_plan(plan: RecyclePlan) -> pb.PlanReply:
    return pb.PlanReply(**{name: value for name, value in _encodable(plan).items() if name != "pool"})


def encode_dump(dump: WorkerDump) -> pb.DumpReply:
    return pb.DumpReply(**_encodable(dump))


def encode_sweep(result: SweepResult) -> pb.SweepReply:
    return pb.SweepReply(**as_json(result))


def encode_commands(commands: Iterable[CommandInfo]) -> pb.CommandsReply:
    return pb.CommandsReply(
        commands=[
            worker_pb2.Command(
                name=command.name,
                summary=command.summary,
                description=command.description,
                streams=command.streams,
                idempotent=command.idempotent,
                timeout=command.timeout,
                schema=command.schema,
                batch=command.batch,
                batch_wait=command.batch_wait,
                result_schema=command.result_schema,
            )
            for command in commands
        ]
    )


# Reading


def decode_status(reply: pb.StatusReply) -> BrokerStatus:
    name = reply.node.name
    return BrokerStatus(
        node=decode(NodeStatus, reply.node),
        pools=tuple(decode(PoolStatus, pool) for pool in reply.pools),
        workers=tuple(decode(WorkerStatus, worker) for worker in reply.workers),
        events=tuple(decode(RecordedEvent, event, node=name) for event in reply.events),
        histograms={
            one.pool: PoolHistograms(dict(one.ran), dict(one.queued), dict(one.recycled)) for one in reply.histograms
        },
        quotas=tuple(decode(QuotaStatus, one) for one in reply.quotas),
    )


def decode_plan(pool: str, reply: pb.PlanReply) -> RecyclePlan:
    return decode(RecyclePlan, reply, pool=pool)


def decode_dump(reply: pb.DumpReply) -> WorkerDump:
    return decode(WorkerDump, reply)


def decode_sweep(reply: pb.SweepReply) -> SweepResult:
    return decode(SweepResult, reply)


def decode_commands(reply: pb.CommandsReply) -> tuple[CommandInfo, ...]:
    return tuple(decode(CommandInfo, command) for command in reply.commands)


def decode(kind: type[Value], message: Message, **given: Any) -> Value:
    """A message as an object of this class; `given` are fields that the message does not have."""
    read = {
        name: None if optional and not message.HasField(name) else convert(getattr(message, name))
        for name, convert, optional in _readers(kind)
        if name not in given
    }
    return kind(**read, **given)


Convert = Callable[[Any], Any]


@cache
def _readers(kind: type[DataclassInstance]) -> tuple[tuple[str, Convert, bool], ...]:
    """Of each field: its name, how its value is read, and whether it may be absent."""
    hints: Mapping[str, Any] = get_type_hints(kind)
    return tuple((one.name, *_reader(hints[one.name])) for one in fields(kind))


def _reader(hint: Any) -> tuple[Convert, bool]:
    optional = NoneType in get_args(hint)
    (only,) = (one for one in get_args(hint) if one is not NoneType) if optional else (hint,)
    if get_origin(only) is tuple:
        convert, _ = _reader(get_args(only)[0])
        return partial(_each, convert), optional
    if get_origin(only) is Mapping:
        return dict, optional
    if isinstance(only, type) and is_dataclass(only):
        return partial(decode, only), optional
    return _CONVERTED.get(only, only), optional


def _each(convert: Convert, values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(map(convert, values))


# Counters are doubles in the messages, because they outgrow 32 bits; `int` makes them whole again.
_CONVERTED: Mapping[Any, Convert] = {float: partial(round, ndigits=DIGITS)}
