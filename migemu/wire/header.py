"""The head of a frame: a message as a short array of plain values, and back, each field judged by its type and range.

    u32 payload length | u16 header length | header            (big endian)

The header is a msgpack array: the message's tag, then its fields in order. One more element may follow: a map of extra
fields, {name: value}. Names that are not known are passed over; those that end in "!" must be known, and are refused
by name. This version knows none.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any, Final

import msgpack

from migemu.errors import PeerError
from migemu.mm.pages import GEOMETRIES, Level
from migemu.wire.digest import DIGEST_BYTES
from migemu.wire.messages import (
    TAGS,
    Advise,
    Agreed,
    Alive,
    ChannelRole,
    Complete,
    DeviceState,
    Digests,
    End,
    Failed,
    Hello,
    Listen,
    Message,
    Page,
    Ready,
    ReceivedBitmap,
    Recover,
    Request,
    Resume,
    Resumed,
    Run,
    Running,
    Zero,
)  # fmt: skip

PREFIX: Final = struct.Struct(">IH")
#: The longest text in a header (a reason, a scenario).
TEXT_BYTES_MAX: Final = 8 * 1024
#: The longest header. With its prefix it must fit the staging buffer.
HEADER_BYTES_MAX: Final = 2 * TEXT_BYTES_MAX + 1024
#: The most base pages whose digests fit a header.
DIGESTED_PAGES_MAX: Final = 2 * TEXT_BYTES_MAX // DIGEST_BYTES
_U63_MAX: Final = (1 << 63) - 1


def encode_head(message: Message, payload_bytes: int) -> bytes:
    """Prefix and header of a frame whose payload has `payload_bytes` bytes."""
    kind = type(message)
    header = _pack(
        [TAGS[kind], *(field.value if isinstance(field, ChannelRole) else field for field in message)]
        if kind is Hello
        else [TAGS[kind], *message]
    )
    return PREFIX.pack(payload_bytes, len(header)) + header


_pack: Callable[[Any], bytes] = msgpack.Packer(use_bin_type=True).pack


def _integer(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _U63_MAX:
        raise ValueError("is not an integer from 0 to 2**63-1")
    return value


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("is not a boolean")
    return value


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > TEXT_BYTES_MAX:
        raise ValueError("is not a text of reasonable length")
    return value


def _digests(value: Any) -> bytes:
    if type(value) is not bytes or len(value) % DIGEST_BYTES:
        raise ValueError(f"is not bytes in digests of {DIGEST_BYTES}")
    return value


def _level(value: Any) -> Level:
    if type(value) is int and value in (Level.PTE, Level.PMD):
        return Level(value)
    raise ValueError("is not a piece size (0 for PTE, 2 for PMD)")


def _migration(value: Any) -> str:
    if type(value) is not str or re.fullmatch(r"[0-9a-f]{32}", value) is None:
        raise ValueError("is not 32 hexadecimal digits")
    return value


def _geometry(value: Any) -> str:
    if type(value) is not str or value not in GEOMETRIES:
        raise ValueError(f"is not one of {', '.join(GEOMETRIES)}")
    return value


def _channel(value: Any) -> ChannelRole:
    if type(value) is not str:
        raise ValueError("is not a channel role")
    return ChannelRole(value)


_RUN = (_integer, _integer, _level)
_FIELDS: Final[dict[type[Message], tuple[Callable[[Any], Any], ...]]] = {
    Hello: (_channel, _migration, _boolean),
    Advise: (_geometry, _integer, _integer, _integer, _boolean, _text),
    Ready: (_migration,),
    Listen: (),
    DeviceState: (_integer,),
    Run: (),
    Running: (),
    Request: (*_RUN, _boolean),
    Page: (*_RUN, _boolean, _digests),
    Zero: (*_RUN, _boolean, _digests),
    End: (_integer, _integer, _integer),
    Digests: (_integer, _digests),
    Complete: (_boolean, _text, _text),
    Alive: (),
    Failed: (_text, _boolean),
    Recover: (),
    ReceivedBitmap: (_integer, _integer, _boolean),
    Resume: (),
    Resumed: (),
    Agreed: (_integer, _text, _integer),
}
_KINDS: Final = {tag: kind for kind, tag in TAGS.items()}
_EXTRA_MAX: Final = 16
#: The most elements of an array or a map, at any depth: msgpack sets aside what a length announces before it looks for
#: the elements, and one that is said within the other multiplies it (67 MiB for 3000 bytes, without this).
_ELEMENTS_MAX: Final = 64


def decode_header(header: bytes | bytearray | memoryview) -> Message:
    """The message of a header; PeerError names the message and the field that is wrong."""
    try:
        values = msgpack.unpackb(header, strict_map_key=True, max_array_len=_ELEMENTS_MAX, max_map_len=_ELEMENTS_MAX)
    except Exception as error:  # msgpack raises half a dozen kinds, UnicodeDecodeError and RecursionError among them
        raise PeerError(f"a header of {len(header)} bytes is not msgpack ({type(error).__name__})") from None
    if type(values) is not list or not values or type(values[0]) is not int or values[0] not in _KINDS:
        raise PeerError(f"a header does not begin with the tag of a known message{_unknown(values)}")
    kind = _KINDS[values[0]]
    checks = _FIELDS[kind]
    if len(values) == len(checks) + 2 and type(values[-1]) is dict:
        _pass_over(kind, values.pop())
    if len(values) != len(checks) + 1:
        raise PeerError(f"{kind.__name__} has {len(values) - 1} fields instead of {len(checks)}")
    fields = []
    for name, check, value in zip(kind._fields, checks, values[1:], strict=True):
        try:
            fields.append(check(value))
        except ValueError as error:
            raise PeerError(f"{kind.__name__}.{name} {error}") from None
    return kind(*fields)


def _unknown(values: Any) -> str:
    """A tag that may be one of another version, and what to do."""
    if type(values) is list and values and type(values[0]) is int:
        return f" (it is {values[0]}); run the same migemu on both sides"
    return ""


def _pass_over(kind: type[Message], extra: dict[Any, Any]) -> None:
    """Extra fields, none of which is known here. PeerError names one that must be."""
    if len(extra) > _EXTRA_MAX:
        raise PeerError(f"{kind.__name__} has {len(extra)} extra fields; {_EXTRA_MAX} are the most")
    for name in extra:
        if type(name) is not str:
            raise PeerError(f"{kind.__name__} has an extra field without a name")
        if name.endswith("!"):
            raise PeerError(
                f"{kind.__name__} has the field {name[:40]!r}, which this side must know and does not; "
                "run the same migemu on both sides"
            )
