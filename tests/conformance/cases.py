"""What a WebSocket endpoint may be sent, by the numbers of Autobahn's test suite, as raw frames.

The suite itself runs on Python 2 alone; the numbers and what each is about are its, the bytes and
this form are ours. Where it leaves open what an endpoint does first (an echo, or its verdict on
what came behind), a case here waits for the echo, so that there is one right transcript.
"""

import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

TEXT, BINARY, CLOSE, PING, PONG, MORE = 0x1, 0x2, 0x8, 0x9, 0xA, 0x0
MASK: Final = b"\x37\xfa\x21\x3d"
HELLO: Final = b"Hello, world!"
UMLAUTS: Final = "Hello-µ@ßöäüàá-UTF-8!!".encode()

OK, PROTOCOL, DATA, LARGE = 1000, 1002, 1007, 1009


class Case(NamedTuple):
    """One conversation.

    steps: bytes to send in one piece, or the number of frames to wait for. code: with which the
    server ends it, its verdict. offer: Sec-WebSocket-Extensions of the request. first: the code
    of whoever said Close first, where that is another.
    """

    number: str
    steps: tuple[bytes | int, ...]
    code: int = OK
    offer: str = ""
    first: int | None = None


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    """A client's frame. `rsv`: the three reserved bits as a number, the first the highest."""
    first = bytes([(fin << 7) | (rsv << 4) | opcode])
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 1 << 16:
        length = bytes([0xFE]) + size.to_bytes(2, "big")
    else:
        length = bytes([0xFF]) + size.to_bytes(8, "big")
    mask = int.from_bytes(MASK * (size // 4 + 1), "big") >> (8 * (4 - size % 4))
    return first + length + MASK + (int.from_bytes(payload, "big") ^ mask).to_bytes(size, "big")


def said(code: int | None = OK, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason)


BYE: Final = said()


def chopped(data: bytes, size: int) -> tuple[bytes, ...]:
    return tuple(data[at : at + size] for at in range(0, len(data), size))


def single(data: bytes) -> tuple[bytes, ...]:
    return chopped(data, 1)


def fragments(opcode: int, payload: bytes, size: int, *, rsv: int = 0) -> tuple[bytes, ...]:
    parts = chopped(payload, size) or (b"",)
    last = len(parts) - 1
    return tuple(
        frame(MORE if at else opcode, part, fin=at == last, rsv=0 if at else rsv)
        for at, part in enumerate(parts)
    )


def echoed(number: str, *pieces: bytes, answers: int = 1, offer: str = "") -> Case:
    """All is well: so many frames come back, and then the client says goodbye."""
    return Case(number, (*pieces, answers, BYE), OK, offer)


def failed(
    number: str, *steps: bytes | int, code: int = PROTOCOL, first: int | None = None
) -> Case:
    return Case(number, steps, code, first=first)


def framing() -> Iterator[Case]:
    for part, opcode, filling in ((1, TEXT, b"*"), (2, BINARY, b"\xfe")):
        sizes = (0, 125, 126, 127, 128, 65_535, 65_536)
        for index, size in enumerate(sizes, 1):
            yield echoed(f"1.{part}.{index}", frame(opcode, filling * size))
        yield echoed(f"1.{part}.8", *chopped(frame(opcode, filling * 65_536), 997))


def pings() -> Iterator[Case]:
    yield echoed("2.1", frame(PING))
    yield echoed("2.2", frame(PING, HELLO))
    yield echoed("2.3", frame(PING, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"))
    yield echoed("2.4", frame(PING, b"\xfe" * 125))
    yield failed("2.5", frame(PING, b"\xfe" * 126))
    yield echoed("2.6", *single(frame(PING, b"\xfe" * 125)))
    yield echoed("2.7", frame(PONG), answers=0)
    yield echoed("2.8", frame(PONG, HELLO), answers=0)
    yield echoed("2.9", frame(PONG, HELLO), frame(PING, b"payload"))
    ten = b"".join(frame(PING, b"payload-%d" % number) for number in range(10))
    yield echoed("2.10", ten, answers=10)
    yield echoed("2.11", *single(ten), answers=10)


def reserved_bits() -> Iterator[Case]:
    hello = frame(TEXT, HELLO)
    yield failed("3.1", frame(TEXT, HELLO, rsv=1))
    yield failed("3.2", hello, 1, frame(TEXT, HELLO, rsv=2) + frame(PING))
    yield failed("3.3", hello, 1, frame(TEXT, HELLO, rsv=3), frame(PING))
    yield failed("3.4", *single(hello), 1, *single(frame(TEXT, HELLO, rsv=4)))
    yield failed("3.5", frame(BINARY, b"\x00\xff\xfe", rsv=5))
    yield failed("3.6", frame(PING, HELLO, rsv=6))
    yield failed("3.7", frame(CLOSE, b"\x03\xe8", rsv=7), first=OK)


def opcodes() -> Iterator[Case]:
    hello = frame(TEXT, HELLO)
    for part, first in ((1, 3), (2, 11)):
        number = f"4.{part}."
        yield failed(number + "1", frame(first))
        yield failed(number + "2", frame(first + 1, b"reserved opcode payload"))
        yield failed(number + "3", hello, 1, frame(first + 2) + frame(PING))
        yield failed(number + "4", hello, 1, frame(first + 3, HELLO), frame(PING))
        yield failed(number + "5", *single(hello), 1, *single(frame(first + 4, HELLO)))


def fragmentation() -> Iterator[Case]:
    one, two = b"fragment1", b"fragment2"
    both = frame(TEXT, one, fin=False), frame(MORE, two)
    ping = frame(PING, b"pongme")
    yield failed("5.1", frame(PING, one, fin=False) + frame(MORE, two))
    yield failed("5.2", frame(PONG, one, fin=False) + frame(MORE, two))
    yield echoed("5.3", b"".join(both))
    yield echoed("5.4", *both)
    yield echoed("5.5", *single(b"".join(both)))
    between = (both[0], ping, both[1])
    yield echoed("5.6", b"".join(between), answers=2)
    yield echoed("5.7", *between, answers=2)
    yield echoed("5.8", *single(b"".join(between)), answers=2)
    for fin, numbers in ((True, (9, 10, 11)), (False, (12, 13, 14))):
        stray, hello = frame(MORE, b"nothing to continue", fin=fin), frame(TEXT, HELLO)
        yield failed(f"5.{numbers[0]}", stray + hello)
        yield failed(f"5.{numbers[1]}", stray, hello)
        yield failed(f"5.{numbers[2]}", *single(stray))
    last = frame(MORE, b"fragment3", fin=False) + frame(TEXT, b"fragment4")
    yield failed("5.15", b"".join(both), 1, last)
    for number, fin in (("5.16", False), ("5.17", True)):
        yield failed(number, frame(MORE, one, fin=fin) + frame(TEXT, two, fin=not fin))
    yield failed("5.18", frame(TEXT, one, fin=False) + frame(TEXT, two))
    five = fragments(TEXT, b"fragment1fragment2fragment3fragment4fragment5", 9)
    pieces = (five[0], five[1], ping, five[2], five[3], ping, five[4])
    yield echoed("5.19", *pieces, answers=3)
    yield Case("5.20", (*pieces[:3], 1, *pieces[3:6], 1, pieces[6], 1, BYE))


def utf8() -> Iterator[Case]:
    yield echoed("6.1.1", frame(TEXT))
    yield echoed(
        "6.1.2", *(frame(op, fin=fin) for op, fin in ((TEXT, False), (MORE, False), (MORE, True)))
    )
    middle = (TEXT, b"", False), (MORE, b"middle frame payload", False), (MORE, b"", True)
    yield echoed("6.1.3", *(frame(op, part, fin=fin) for op, part, fin in middle))
    yield echoed("6.2.1", frame(TEXT, UMLAUTS))
    yield echoed("6.2.2", *fragments(TEXT, UMLAUTS, 12))
    yield echoed("6.2.3", *fragments(TEXT, UMLAUTS, 1))
    kosme = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"
    yield echoed("6.2.4", *fragments(TEXT, kosme, 1))
    bad = kosme + b"\xed\xa0\x80" + b"edited"
    yield failed("6.3.1", frame(TEXT, bad), code=DATA)
    yield failed("6.3.2", *fragments(TEXT, bad, 1), code=DATA)
    beyond = kosme + b"\xf4\x90\x80\x80" + b"edited"
    yield failed("6.4.1", *fragments(TEXT, beyond, 11), code=DATA)
    yield failed("6.4.2", *fragments(TEXT, beyond, 12), code=DATA)
    yield failed("6.4.3", *chopped(frame(TEXT, beyond), 17), code=DATA)
    yield failed("6.4.4", *chopped(frame(TEXT, beyond), 18), code=DATA)
    for number, sequences in _SEQUENCES.items():
        for index, sequence in enumerate(sequences, 1):
            valid = _is_utf8(sequence)
            whole = frame(TEXT, sequence)
            name = f"6.{number}.{index}"
            yield echoed(name, whole) if valid else failed(name, whole, code=DATA)


def _is_utf8(sequence: bytes) -> bool:
    try:
        sequence.decode()
    except UnicodeDecodeError:
        return False
    return True


def _points(*points: int) -> tuple[bytes, ...]:
    return tuple(chr(point).encode("utf-8", "surrogatepass") for point in points)


_KOSME: Final = "κόσμε".encode()
_LEADS: Final = [(0xC0, 32), (0xE0, 16), (0xF0, 8), (0xF8, 4), (0xFC, 2)]
_SURROGATES: Final = (0xD800, 0xDB7F, 0xDB80, 0xDBFF, 0xDC00, 0xDF80, 0xDFFF)
_UNFINISHED: Final = (
    b"\xc0",
    b"\xe0\x80",
    b"\xf0\x80\x80",
    b"\xf8\x80\x80\x80",
    b"\xfc\x80\x80\x80\x80",
    b"\xdf",
    b"\xef\xbf",
    b"\xf7\xbf\xbf",
    b"\xfb\xbf\xbf\xbf",
    b"\xfd\xbf\xbf\xbf\xbf",
)
_SEQUENCES: Final[dict[int, tuple[bytes, ...]]] = {
    5: tuple(_KOSME[: len("κόσμε"[:count].encode())] for count in range(1, 6)),
    6: tuple(_KOSME[:count] for count in range(1, len(_KOSME) + 1)),
    7: _points(0x00, 0x80, 0x800, 0x10000),
    8: (b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"),
    9: (*_points(0x7F, 0x7FF, 0xFFFF), b"\xf7\xbf\xbf\xbf"),
    10: (b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf", b"\xf4\x90\x80\x80"),
    11: _points(0xD7FF, 0xE000, 0xFFFD, 0x10FFFF, 0x10FFFE),
    12: (*(b"\x80" * n for n in range(1, 8)), bytes(range(0x80, 0xC0))),
    13: tuple(
        b"".join(bytes([lead, 0x20]) for lead in range(first, first + count))
        for first, count in _LEADS
    ),
    14: _UNFINISHED,
    15: (b"".join(_UNFINISHED),),
    16: (b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"),
    17: (
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xf8\x80\x80\x80\xaf",
        b"\xfc\x80\x80\x80\x80\xaf",
    ),
    18: (
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xf8\x87\xbf\xbf\xbf",
        b"\xfc\x83\xbf\xbf\xbf\xbf",
    ),
    19: (
        b"\xc0\x80",
        b"\xe0\x80\x80",
        b"\xf0\x80\x80\x80",
        b"\xf8\x80\x80\x80\x80",
        b"\xfc\x80\x80\x80\x80\x80",
    ),
    20: _points(*_SURROGATES),
    21: tuple(b"".join(_points(high, low)) for high in _SURROGATES[:4] for low in (0xDC00, 0xDFFF)),
    22: _points(
        *(plane + end for plane in range(0, 0x110000, 0x10000) for end in (0xFFFE, 0xFFFF))
    ),
    23: _points(*range(0xFFF9, 0x10000)),
}


def closing() -> Iterator[Case]:
    hello = frame(TEXT, HELLO)
    yield echoed("7.1.1", hello)
    yield Case("7.1.2", (BYE + BYE,))
    yield Case("7.1.3", (BYE + frame(PING),))
    yield Case("7.1.4", (BYE + hello,))
    cut = frame(TEXT, b"fragment1", fin=False), frame(MORE, b"fragment2")
    yield failed("7.1.5", cut[0] + BYE + cut[1], first=OK)
    yield Case("7.1.6", (frame(TEXT, b"BAsd7&jh23" * 26_214), 1, BYE + frame(PING)))
    yield Case("7.3.1", (said(None),), 1005)
    yield failed("7.3.2", frame(CLOSE, b"a"), first=1005)
    yield Case("7.3.3", (said(),))
    yield Case("7.3.4", (said(reason=HELLO),))
    yield Case("7.3.5", (said(reason=b"*" * 123),))
    yield failed("7.3.6", said(reason=b"*" * 124))
    yield failed("7.5.1", said(reason=_KOSME + b"\xed\xa0\x80edited"), code=DATA, first=OK)
    good = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    for index, code in enumerate(good, 1):
        yield Case(f"7.7.{index}", (said(code),), code)
    bad = (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999)
    for index, code in enumerate(bad, 1):
        yield failed(f"7.9.{index}", said(code), first=code)
    for index, code in enumerate((5000, 65_535), 1):
        yield failed(f"7.13.{index}", said(code), first=code)


def limits() -> Iterator[Case]:
    """In short: Autobahn goes to 16 MiB and a thousand round trips of each size."""
    for part, opcode in ((1, TEXT), (2, BINARY)):
        for index, size in enumerate((1 << 16, 1 << 18, 1 << 20), 1):
            yield echoed(f"9.{part}.{index}", frame(opcode, b"*" * size))
        for index, size in enumerate((64, 1024, 16_384, 1 << 17), 1):
            yield echoed(
                f"9.{part + 2}.{index}", b"".join(fragments(opcode, b"*" * (1 << 17), size))
            )
        for index, size in enumerate((64, 512, 2048), 1):
            yield echoed(f"9.{part + 4}.{index}", *chopped(frame(opcode, b"*" * (1 << 16)), size))
        for index, size in enumerate((0, 16, 256, 4096), 1):
            steps = (frame(opcode, b"*" * size), 1) * 20
            yield Case(f"9.{part + 6}.{index}", (*steps, BYE))
    yield Case("9.9.1", (frame(BINARY, b"*" * ((1 << 20) + 1)),), LARGE)


_OFFERS: Final = (
    "permessage-deflate",
    "permessage-deflate; client_no_context_takeover; client_max_window_bits",
    "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9",
    "permessage-deflate; server_no_context_takeover; server_max_window_bits=15",
    "permessage-deflate; client_max_window_bits=8, permessage-deflate",
    "x-unheard-of; a=1, permessage-deflate; client_max_window_bits",
)


def _deflated(payload: bytes) -> bytes:
    """A window of 512 bytes and no context: right for any of the offers."""
    squeezer = zlib.compressobj(wbits=-9)
    return (squeezer.compress(payload) + squeezer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def compression() -> Iterator[Case]:
    """12.* by message size, 13.* by what is offered; the last are Autobahn's no more."""
    for index, size in enumerate((16, 64, 1024, 1 << 16), 1):
        text = (b"So they went on talking. " * 3000)[:size]
        one = frame(TEXT, _deflated(text), rsv=4)
        yield Case(f"12.1.{index}", (one, 1) * 4 + (BYE,), OK, _OFFERS[0])
    for index, offer in enumerate(_OFFERS, 1):
        packed = _deflated(b"abc" * 5000)
        pieces = fragments(TEXT, packed, max(1, len(packed) // 3), rsv=4)
        plain = frame(TEXT, b"not compressed")
        steps: tuple[bytes | int, ...] = (*pieces, 1, plain, 1, frame(TEXT, packed, rsv=4), 1, BYE)
        yield Case(f"13.{index}.1", steps, OK, offer)
    yield Case("13.7.1", (frame(TEXT, b"\xff\xff no deflate \xff", rsv=4),), PROTOCOL, _OFFERS[0])
    yield Case("13.7.2", (frame(TEXT, _deflated(HELLO), rsv=4),), PROTOCOL)
    yield Case("13.7.3", (frame(PING, HELLO, rsv=4),), PROTOCOL, _OFFERS[0])


FAMILIES: Final = {
    "1": framing,
    "2": pings,
    "3": reserved_bits,
    "4": opcodes,
    "5": fragmentation,
    "6": utf8,
    "7": closing,
    "9": limits,
    "12,13": compression,
}
