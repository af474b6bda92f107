"""Reads a pickle as data, without executing anything in it.

A pickle is a program for a stack machine that may call any function of any module. This interpreter imports no module, calls
nothing and sets no attribute. A name becomes a :class:`Named`. What a call of it makes is decided by the caller's
function, or is an inert :class:`Unread`. So the tensors of a training checkpoint can be read even if its
optimizer or arguments are objects of packages that are not installed.

Time and memory are bounded by the pickle's length, whatever it claims: memo indices are dictionary keys, lengths are
checked against the data, and no value is traversed, copied or hashed, so nesting does no harm.
"""

from __future__ import annotations

import dataclasses
import pickle
import pickletools
import struct
from collections.abc import Callable
from typing import Any

MAX_BYTES = 1 << 26  # torch.save writes about 100 bytes per tensor
MAX_STEPS = 3_000_000  # a step takes about 100 bytes of memory, however short it is in the file
_MAX_INTEGER_BYTES = 64

# No checkpoint needs these. They would not run here, but a file that names them attacks other readers.
_MODULES = "os posix nt subprocess sys shutil socket pty ctypes importlib runpy code pickle _pickle"
_OF_PYTHON = "eval exec execfile compile open __import__ input breakpoint globals locals"
_TRAPS, _TRAPS_OF_PYTHON = frozenset(_MODULES.split()), frozenset(_OF_PYTHON.split())


class PickleError(ValueError):
    """The bytes are not a pickle, or the pickle is too large."""


class TrapError(ValueError):
    """The pickle names something that no checkpoint needs."""


@dataclasses.dataclass(frozen=True, eq=False)
class Named:
    """A class or a function that a pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"[:120]


@dataclasses.dataclass(frozen=True, eq=False)
class Unread:
    """Stands for an object that ``kind`` would have made."""

    kind: str


class OtherKey:
    """Replaces a key that is not text. Such keys are never hashed: hashing a deep tuple would crash the process."""


Rebuild = Callable[[Named, tuple[Any, ...]], Any]


def read_pickle(data: bytes, rebuild: Rebuild, persistent: Callable[[Any], Any]) -> Any:
    """Returns the value of a pickle of protocol 2 to 5.

    Args:
      data: the pickle.
      rebuild: called with the name that the pickle calls and its arguments; returns a value or an :class:`Unread`.
      persistent: called with a reference to something outside the pickle; returns a value.

    Raises:
      PickleError: the bytes are not such a pickle.
      TrapError: the pickle names functions of the operating system or the like.
    """
    if len(data) > MAX_BYTES:
        raise PickleError(f"a pickle of {len(data):,} bytes; at most {MAX_BYTES:,} are read")
    return _Machine(data, rebuild, persistent).run()


class _Machine:
    """Holds the stack, the marks in it, the memo, and the position in the pickle."""

    def __init__(self, data: bytes, rebuild: Rebuild, persistent: Callable[[Any], Any]):
        self.data, self.at = data, 0
        self.rebuild, self.persistent = rebuild, persistent
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []  # the stacks below each open mark
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MAX_STEPS):
            code = self.take(1)
            if code == pickle.STOP:
                return self.pop()
            action = _ACTIONS.get(code)
            if action is None:
                known = pickletools.code2op.get(code.decode("latin-1"))
                name = f"opcode {known.name}" if known else f"byte {code[0]:#04x}"
                raise PickleError(f"{name} at {self.at - 1:,}, which torch.save does not write")
            action(self)
        raise PickleError(f"a pickle of more than {MAX_STEPS:,} steps")

    # Bytes of the pickle ------------------------------------------------------------------------------------------------

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise PickleError(f"the pickle ends at {len(self.data):,}, in what should go on to {end:,}")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def number(self, layout: str) -> int:
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}")))[0]

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + 1000)
        if end < 0:
            raise PickleError(f"no end of the name at {self.at:,}")
        name, self.at = self.data[self.at : end], end + 1
        return _text(name)

    # The stack ----------------------------------------------------------------------------------------------------------

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise PickleError(f"nothing on the stack at {self.at - 1:,}")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack:
            raise PickleError(f"nothing on the stack at {self.at - 1:,}")
        return self.stack[-1]

    def pop_mark(self) -> list[Any]:
        """Returns what was pushed since the last mark."""
        if not self.marked:
            raise PickleError(f"no mark at {self.at - 1:,}")
        items, self.stack = self.stack, self.marked.pop()
        return items

    # What opcodes do ----------------------------------------------------------------------------------------------------

    def protocol(self) -> None:
        version = self.number("B")
        if not 2 <= version <= pickle.HIGHEST_PROTOCOL:
            raise PickleError(f"a pickle of protocol {version}; 2 to {pickle.HIGHEST_PROTOCOL} are read")

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def integer(self, layout: str) -> None:
        count = self.number(layout)
        if not 0 <= count <= _MAX_INTEGER_BYTES:
            raise PickleError(f"an integer of {count:,} bytes at {self.at:,}")
        self.push(int.from_bytes(self.take(count), "little", signed=True))

    def get(self, layout: str) -> None:
        index = self.number(layout)
        if index not in self.memo:
            raise PickleError(f"nothing is remembered as {index}")
        self.push(self.memo[index])

    def put(self, layout: str) -> None:
        self.memo[self.number(layout)] = self.top()

    def memoize(self) -> None:
        self.memo[len(self.memo)] = self.top()

    def make_tuple(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    def append(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target += items
        elif not isinstance(target, Unread):
            raise PickleError(f"items of something that is not a list at {self.at - 1:,}")

    def set_items(self, items: list[Any]) -> None:
        target = self.top()
        if len(items) % 2 or not isinstance(target, dict | Unread):
            raise PickleError(f"entries of something that is not a dictionary at {self.at - 1:,}")
        if isinstance(target, dict):
            target.update((_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))

    def append_one(self) -> None:
        value = self.pop()
        self.append([value])

    def set_one(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def add_items(self) -> None:
        self.pop_mark()
        if not isinstance(self.top(), Unread):
            raise PickleError(f"members of something that is not a set at {self.at - 1:,}")

    def frozen_set(self) -> None:
        self.pop_mark()
        self.push(Unread("a set"))

    def name(self) -> None:
        self.push(_named(self.line(), self.line()))

    def name_from_stack(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise PickleError(f"a name that is not text at {self.at - 1:,}")
        self.push(_named(module, name))

    def call(self, keywords: bool = False) -> None:
        if keywords:
            self.pop()
        arguments, target = self.pop(), self.pop()
        if not isinstance(arguments, tuple) or not isinstance(target, Named | Unread):
            raise PickleError(f"a call of something that is not a function at {self.at - 1:,}")
        if isinstance(target, Unread):
            self.push(target)
        else:
            self.push(Unread(str(target)) if keywords else self.rebuild(target, arguments))

    def build(self) -> None:
        """Discards the attributes that a pickle would set; our stand-ins have none."""
        self.pop()
        self.top()

    def reference(self) -> None:
        self.push(self.persistent(self.pop()))


def _key(key: Any) -> Any:
    return key if isinstance(key, str) else OtherKey()


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise PickleError("a text that is not UTF-8") from error


def _named(module: str, name: str) -> Named:
    named = Named(module, name)
    of_python = module in ("builtins", "__builtin__")
    if module.partition(".")[0] in _TRAPS or (of_python and name.partition(".")[0] in _TRAPS_OF_PYTHON):
        raise TrapError(f"its pickle wants {named}, for which no checkpoint has a use")
    return named


_ACTIONS: dict[bytes, Callable[[_Machine], None]] = {
    pickle.PROTO: _Machine.protocol,
    pickle.FRAME: lambda m: m.number("Q") and None,  # a read-ahead hint; the whole pickle is in memory
    pickle.MARK: _Machine.mark,
    pickle.POP: lambda m: m.pop() and None,
    pickle.POP_MARK: lambda m: m.pop_mark() and None,
    pickle.DUP: lambda m: m.push(m.top()),
    pickle.NONE: lambda m: m.push(None),
    pickle.NEWTRUE: lambda m: m.push(True),
    pickle.NEWFALSE: lambda m: m.push(False),
    pickle.BININT: lambda m: m.push(m.number("i")),
    pickle.BININT1: lambda m: m.push(m.number("B")),
    pickle.BININT2: lambda m: m.push(m.number("H")),
    pickle.LONG1: lambda m: m.integer("B"),
    pickle.LONG4: lambda m: m.integer("i"),
    pickle.BINFLOAT: lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    pickle.SHORT_BINUNICODE: lambda m: m.push(_text(m.take(m.number("B")))),
    pickle.BINUNICODE: lambda m: m.push(_text(m.take(m.number("I")))),
    pickle.BINUNICODE8: lambda m: m.push(_text(m.take(m.number("Q")))),
    # Python 2's texts; and bytes, which nothing here uses.
    pickle.SHORT_BINSTRING: lambda m: m.push(m.take(m.number("B")).decode("latin-1")),
    pickle.BINSTRING: lambda m: m.push(m.take(m.number("I")).decode("latin-1")),
    pickle.SHORT_BINBYTES: lambda m: m.push(m.take(m.number("B"))),
    pickle.BINBYTES: lambda m: m.push(m.take(m.number("I"))),
    pickle.BINBYTES8: lambda m: m.push(m.take(m.number("Q"))),
    pickle.BYTEARRAY8: lambda m: m.push(m.take(m.number("Q"))),
    pickle.EMPTY_LIST: lambda m: m.push([]),
    pickle.LIST: lambda m: m.push(m.pop_mark()),
    pickle.APPEND: _Machine.append_one,
    pickle.APPENDS: lambda m: m.append(m.pop_mark()),
    pickle.EMPTY_TUPLE: lambda m: m.push(()),
    pickle.TUPLE: lambda m: m.push(tuple(m.pop_mark())),
    pickle.TUPLE1: lambda m: m.make_tuple(1),
    pickle.TUPLE2: lambda m: m.make_tuple(2),
    pickle.TUPLE3: lambda m: m.make_tuple(3),
    pickle.EMPTY_DICT: lambda m: m.push({}),
    pickle.SETITEM: _Machine.set_one,
    pickle.SETITEMS: lambda m: m.set_items(m.pop_mark()),
    pickle.EMPTY_SET: lambda m: m.push(Unread("a set")),
    pickle.ADDITEMS: _Machine.add_items,
    pickle.FROZENSET: _Machine.frozen_set,
    pickle.GLOBAL: _Machine.name,
    pickle.STACK_GLOBAL: _Machine.name_from_stack,
    pickle.REDUCE: _Machine.call,
    pickle.NEWOBJ: _Machine.call,
    pickle.NEWOBJ_EX: lambda m: m.call(keywords=True),
    pickle.BUILD: _Machine.build,
    pickle.BINPERSID: _Machine.reference,
    pickle.BINGET: lambda m: m.get("B"),
    pickle.LONG_BINGET: lambda m: m.get("I"),
    pickle.BINPUT: lambda m: m.put("B"),
    pickle.LONG_BINPUT: lambda m: m.put("I"),
    pickle.MEMOIZE: _Machine.memoize,
}
