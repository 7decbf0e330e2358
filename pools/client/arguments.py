"""Checks a call's arguments and options and makes them an EncodedCall, which a session only has to number.

>>> call = encode("digits", "classify", {"pixels": [0, 1]}, {}, Options(timeout=2))
>>> call.command, call.arguments, call.timeout
('classify', b'{"@typed":1,"pixels":[0,1]}', 2.0)
>>> encode("digits", "classify", {"at": {1, 2}}, {}, Options()).arguments
b'{"@typed":1,"at":{"$set":[1,2]}}'
>>> encode("digits", "classify", {"at": [str]}, {}, Options())
Traceback (most recent call last):
    ...
snakepit.pools.broker.errors.BadArguments: at[0]: is a type, which has no form; pass its name
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from snakepit.pools.broker.caller import CallerIdentity, current
from snakepit.pools.broker.errors import BadArguments, BadRequest, BrokerError, DeadlineExceeded, PayloadTooLarge
from snakepit.pools.broker.messages import MAX_AFFINITY
from snakepit.workers.buffers import ATTACHMENT, LARGEST, LARGEST_INLINE, BufferTooLarge, Outgoing
from snakepit.workers.memory_file import are_possible
from snakepit.workers.schema import json_text, kinds, short_arrays, typed
from snakepit.workers.schema.not_carried import NotCarried, ValueTooLarge
from snakepit.workers.transport import BUFFERS as BUFFERS_SWITCH
from snakepit.workers.transport import is_on

MAX_MESSAGE = 256 * 2**20  # bytes: no call is larger, whatever its pool allows
LONGEST_TIMEOUT = 31 * 86_400.0  # seconds; more is the same as no timeout
BYTES = (bytes, bytearray, memoryview)
PART_FROM = 56 * 1024  # bytes of an argument from which it costs less beside the call than in it, despite its tag
PASSES_BUFFERS = is_on(BUFFERS_SWITCH) and are_possible()
FILE_FROM = LARGEST_INLINE if PASSES_BUFFERS else math.inf  # bytes of large parts beyond which they are in a file
NO_ARGUMENTS = b'{"@typed":1}'

# Compact. NaN is refused here: it is not JSON, and the worker would refuse it later without naming the argument.
_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode


class Json(dict[str, Any]):
    """Arguments that are JSON already. The result comes in its JSON form, without types that JSON does not have.

    Tags such as {"$bytes": ...} are sent as they are. It is for programs that pass JSON on, such as a REST API, and for
    processes without the libraries of a result's types: `client.call("pool", "command", Json(x=1))`.
    """

    buffers: Outgoing | None = None  # the parts that its values name
    keeps_types = False  # the result has its tags, for `Client.aexecute_encoded`


class Options(NamedTuple):
    """What a caller may set for a call besides its arguments."""

    timeout: float | None = None  # seconds; None: the command's or the pool's default
    priority: int = 0  # -100 to 100, higher first
    affinity: str = ""  # a key: calls with the same one go to the same node and worker where it has a free slot
    credit: int = 0  # chunks that there is room for; 0: the caller reads one result
    credit_bytes: int = 0  # maximum unacknowledged chunk bytes; 0: unlimited


@dataclass(slots=True)  # not frozen, which would double the cost of making one
class EncodedCall:
    """A call that is ready to be sent; it has the fields of the protobuf message."""

    pool: str
    command: str
    arguments: bytes = b""
    attachments: Mapping[str, bytes] | None = None
    timeout: float = 0.0
    priority: int = 0
    credit: int = 0
    credit_bytes: int = 0
    result_only: bool = True  # the caller does not read chunks, progress and log lines
    caller: CallerIdentity | None = None  # for limits by key and owner
    buffers: Outgoing | None = None  # large parts of the arguments
    affinity: str = ""

    @property
    def takes_parts(self) -> bool:
        """Whether a stream's values may have large parts beside them: for a reader of JSON, all is in the text."""
        return self.credit > 0 and self.arguments.startswith(b'{"@typed":')

    @property
    def is_plain(self) -> bool:
        """Whether it may travel together with calls like it."""
        return not self.attachments and self.caller is None and self.buffers is None and not self.affinity

    def is_like(self, other: EncodedCall) -> bool:
        """Whether this is a plain call that differs from another one in nothing but its arguments."""
        return (
            self.command == other.command
            and self.pool == other.pool
            and self.timeout == other.timeout
            and self.priority == other.priority
            and self.result_only == other.result_only
            and self.credit == other.credit
            and self.credit_bytes == other.credit_bytes
            and self.is_plain
        )


def encode(
    pool: str, command: str, arguments: Mapping[str, Any] | None, more: Mapping[str, Any], options: Options
) -> EncodedCall:
    """Check a call and return it."""
    if not isinstance(pool, str) or not isinstance(command, str) or not pool or not command:
        raise BadRequest(f"pool and command must be names, not {pool!r} and {command!r}")
    if not (pool.isascii() and command.isascii()):
        _check_text(pool, command)
    values = _merged(arguments, more)
    call = EncodedCall(pool, command)
    call.caller = current()
    plain = isinstance(arguments, Json)
    for reserved in (typed.NAME, ATTACHMENT):
        if reserved in values:
            raise BadArguments(f"arguments: {reserved!r} is a reserved name; rename the argument")
    if values and (flat := _flat(values, plain=plain)) and len(flat) <= MAX_MESSAGE:  # nearly always
        call.arguments = flat
    else:
        call.arguments, call.attachments, call.buffers = _encoded(values, plain=plain)
    if isinstance(arguments, Json):
        _add_options_of(call, arguments)
    if options.timeout is not None:
        call.timeout = _checked_timeout(options.timeout)
    if options.priority:
        call.priority = _checked_priority(options.priority)
    if options.credit or options.affinity:
        call.credit, call.credit_bytes = options.credit, options.credit_bytes
        call.affinity = _checked_affinity(options.affinity)
    return call


def _add_options_of(call: EncodedCall, given: Json) -> None:
    call.buffers = given.buffers
    if given.keeps_types:
        text = call.arguments[1:] if len(call.arguments) > 2 else b"}"
        call.arguments = NO_ARGUMENTS[:-1] + (b"," if len(text) > 1 else b"") + text


def encode_each(
    pool: str, command: str, items: Iterator[Mapping[str, Any]], options: Options
) -> Iterator[EncodedCall | BrokerError]:
    """A call for each item; for one that cannot be sent, its error."""
    for item in items:
        made: EncodedCall | BrokerError
        try:
            made = encode(pool, command, item, {}, options)
        except BrokerError as error:
            made = error
        yield made


_Parts = tuple[bytes, Mapping[str, bytes] | None, Outgoing | None]


def _encoded(values: Mapping[str, Any], *, plain: bool) -> _Parts:
    """The arguments as text, those that are bytes or a file beside it, and the large parts of all."""
    if not values:
        return (b"" if plain else NO_ARGUMENTS), None, None
    if not plain and (short := _with_arrays(values)):
        return short
    try:
        return _encoded_parts(values, plain=plain)
    except BrokerError:
        raise
    except Exception as error:  # an object's own code, such as a property that raises; a view that was released
        raise BadArguments(f"arguments: {type(error).__name__} while they were converted: {error}") from error


def _encoded_parts(values: Mapping[str, Any], *, plain: bool) -> _Parts:
    size = 0
    attachments: dict[str, bytes] = {}
    for name, value in values.items():
        if type(value) in typed.PLAIN:
            continue
        data = kinds.read_file(value) if kinds.is_file(value) else value
        if isinstance(data, BYTES):
            nbytes = memoryview(data).nbytes
            is_part = nbytes > LARGEST_INLINE or (type(value) is bytes and nbytes >= PART_FROM)
            if is_part and not plain and PASSES_BUFFERS:
                continue
            size += nbytes
            _check_size(size)
            attachments[name] = bytes(data)
    if attachments:
        _check_text(*attachments)
        values = {name: value for name, value in values.items() if name not in attachments}
    text, buffers = (_json(values), None) if plain else _typed(values)
    _check_size(size + len(text))
    return text, attachments or None, buffers


def _flat(values: Mapping[str, Any], *, plain: bool) -> bytes:
    """The text of arguments that are texts and numbers, which most are; empty: it takes more to encode them."""
    try:
        members = json_text.encode_flat(values)
        if members is None:
            return b""
        return b"{%b}" % members.encode() if plain else b'{"@typed":1,%b}' % members.encode()
    except ValueError:  # an integer with too many digits, or a lone surrogate
        return b""


def _with_arrays(values: Mapping[str, Any]) -> _Parts | None:
    """The arguments, if they are arrays of numbers beside texts and numbers; None: they take the general way."""
    made: list[Outgoing] = []
    try:
        text = short_arrays.text_of({typed.NAME: 1, **values}, lambda: _buffers(made)).encode()
    except ValueError:  # a lone surrogate
        return None
    if not text or len(text) > MAX_MESSAGE:
        return None
    return text, None, made[0] if made and made[0].is_used else None


def _merged(arguments: Mapping[str, Any] | None, more: Mapping[str, Any]) -> Mapping[str, Any]:
    if arguments is None:
        return more
    if type(arguments) is not dict and not isinstance(arguments, Mapping):
        raise BadArguments(f"arguments: must be an object of keyword arguments, not {type(arguments).__name__}")
    if not typed.TEXT.issuperset(map(type, arguments)):
        for name in arguments:
            if not isinstance(name, str):
                raise BadArguments(f"arguments: {name!r} is not the name of an argument; names are strings")
        # A subclass, such as a member of a StrEnum.
        arguments = {str.__str__(name): value for name, value in arguments.items()}
    return {**arguments, **more} if more else arguments


def _typed(values: Mapping[str, Any]) -> tuple[bytes, Outgoing | None]:
    """The arguments with tags for what JSON does not have. BadArguments has the path of a part without a form."""
    try:
        made: list[Outgoing] = []  # most calls have no large parts
        text = typed.encode_tree({typed.NAME: 1, **values}, MAX_MESSAGE, "", lambda: _buffers(made))[0]
        return text, made[0] if made and made[0].is_used else None
    except NotCarried as problem:
        path = problem.path.removeprefix(".")
        name = next((name for name in values if path.startswith(name)), "")
        raise BadArguments(
            f"{path or 'arguments'}: {problem.reason}", details={"argument": name, "path": path}
        ) from problem
    except (ValueTooLarge, BufferTooLarge) as problem:
        raise _too_large(problem.size) from problem
    except RecursionError as error:
        raise _explained(values, error) from error


def _buffers(made: list[Outgoing]) -> Outgoing:
    made.append(Outgoing(LARGEST if PASSES_BUFFERS else MAX_MESSAGE, file_from=FILE_FROM))
    return made[0]


def _json(values: Mapping[str, Any]) -> bytes:
    try:
        return json_text.encode(values if isinstance(values, dict) else dict(values), _encode).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise _explained(values, error) from error


def _explained(values: Mapping[str, Any], error: Exception) -> BadArguments:
    """Return the same failure with the argument's name; the search costs only calls that fail."""
    for name, value in values.items():
        try:
            _encode({name: value}).encode()
        except RecursionError:
            return BadArguments(f"{name}: is nested too deeply", details={"argument": name})
        except UnicodeEncodeError:
            return BadArguments(f"{name}: has text that is not Unicode", details={"argument": name})
        except (TypeError, ValueError) as reason:
            return BadArguments(f"{name}: {reason}; {_fix(str(reason))}", details={"argument": name})
    return BadArguments(f"arguments: {error}")


def _fix(reason: str) -> str:
    if "bytes" in reason or "memoryview" in reason:
        return "bytes may be an argument of their own, not a part of one"
    if "Circular" in reason:
        return "an argument must not contain itself"
    if "Out of range" in reason:
        return "JSON has no NaN and no infinity; pass None or text"
    return "pass lists, dicts, strings, numbers, true, false or null"


def _check_text(*names: str) -> None:
    """Check names here: where the message is made, the caller cannot get the error any more."""
    for name in names:
        if not name.isascii():
            try:
                name.encode()
            except UnicodeEncodeError:
                raise BadRequest(f"{name!r} is not a name: it has text that is not Unicode") from None


def _check_size(size: int) -> None:
    if size > MAX_MESSAGE:
        raise _too_large(size)


def _too_large(size: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The arguments have {size} bytes, more than the {MAX_MESSAGE} that the max_payload of any pool may be; "
        "send the data in parts, or pass the name of a file.",
        details={"bytes": size, "limit": MAX_MESSAGE},
    )


def _checked_timeout(timeout: float) -> float:
    is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not is_number or (isinstance(timeout, float) and not math.isfinite(timeout)):  # an int may be too large for it
        raise BadRequest(f"timeout: {timeout!r} is not a number of seconds")
    if timeout <= 0:
        raise DeadlineExceeded("The call's timeout ended before it was sent.", outcome="not_started")
    return float(min(timeout, LONGEST_TIMEOUT))


def _checked_priority(priority: int) -> int:
    if isinstance(priority, bool) or not isinstance(priority, int) or not -100 <= priority <= 100:
        raise BadRequest(f"priority: {priority!r} is not a whole number from -100 to 100")
    return priority


def _checked_affinity(key: str) -> str:
    if not isinstance(key, str) or len(key) > MAX_AFFINITY:
        raise BadRequest(f"affinity: a text of up to {MAX_AFFINITY} characters is needed, not {str(key)[:60]!r}")
    _check_text(key)
    return key
