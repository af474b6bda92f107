"""Estimates the bytes that a compiled program moves through memory and over the interconnect, from its HLO text.

``Compiled.cost_analysis()`` counts the body of a loop once and ignores the network. Here every scheduled instruction is
charged its operands and results, times the trip counts of the loops around it: a fusion counts as one instruction, a slice of
a big array with the size of the slice, and arrays in on-chip memory (``S(1)`` in a TPU layout) not at all. The estimate has
not been compared with a measurement.
"""

from __future__ import annotations

import dataclasses
import math
import re

_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "token": 0, "opaque": 0, "c64": 8, "c128": 16}
_ARRAY = re.compile(r"(\w+)\[([\d,<= ]*)\](\{[^{}]*\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_COMMENT = re.compile(r"/\*.*?\*/")

# These move nothing: they name existing arrays, or end an operation that is counted at its start.
_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
    "iota",
}
_COLLECTIVES = {"all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all", "ragged-all-to-all"}


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes that a device moves in one run of the program."""

    memory: float  # read from and written to its memory
    interconnect: float  # sent by it, with the usual ring algorithms
    collectives: dict[str, float]  # the same by kind


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    type: str
    opcode: str
    operands: list[str]
    attributes: str
    root: bool


_Computation = dict[str, _Instruction]


def traffic(text: str, devices: int) -> Traffic:
    """Returns the traffic of the program ``text`` (``Compiled.as_text()``). Raises ValueError if it has no entry."""
    computations, entry = _parse(text)
    if entry is None:
        raise ValueError("not the text of a compiled program: no ENTRY computation")
    memory, sent = 0.0, dict.fromkeys(sorted(_COLLECTIVES), 0.0)

    def visit(name: str, times: float) -> None:
        nonlocal memory
        computation = computations[name]
        for instruction in computation.values():
            opcode = instruction.opcode.removesuffix("-start")
            if instruction.opcode == "while":
                body, condition = _called(instruction, "body")[0], _called(instruction, "condition")[0]
                visit(body, times * _trip_count(instruction, computations[condition]))
            elif instruction.opcode in ("call", "conditional"):
                for called in _called(instruction, "to_apply|branch_computations|true_computation|false_computation"):
                    visit(called, times)
            elif opcode not in _FREE and not instruction.opcode.endswith(("-done", "-update")):
                if opcode in _COLLECTIVES:
                    sent[opcode] += times * _sent(opcode, instruction, computation, devices)
                memory += times * _memory(instruction, computation, computations)

    visit(entry, 1.0)
    return Traffic(memory, sum(sent.values()), {kind: size for kind, size in sent.items() if size})


# Bytes of an instruction ---------------------------------------------------------------------------------------------


def _memory(instruction: _Instruction, computation: _Computation, computations: dict[str, _Computation]) -> float:
    operands = [computation[name].type if name in computation else "" for name in instruction.operands]
    opcode = instruction.opcode.removesuffix("-start")
    if opcode in ("dynamic-slice", "slice", "gather"):
        return 2 * _size(_last(instruction, opcode))
    if opcode == "dynamic-update-slice":
        return 2 * _size(operands[1])
    if opcode == "copy":
        return _size(operands[0]) + _size(_first(instruction.type))
    called = _called(instruction, "calls") if opcode in ("fusion", "async") else []
    if not called:
        return sum(map(_size, operands)) + _size(instruction.type)
    inner = computations[called[0]]
    parameters = {_parameter_index(i): i.name for i in inner.values() if i.opcode == "parameter"}
    total = 0.0
    for index, kind in enumerate(operands):
        users = [i for i in inner.values() if parameters.get(index) in i.operands]
        if users and all(i.opcode in ("dynamic-slice", "slice", "gather") for i in users):
            total += min(_size(kind), sum(_size(i.type, everywhere=True) for i in users)) if _size(kind) else 0
        elif users and all(
            i.opcode == "dynamic-update-slice" and i.operands[0] == parameters[index] for i in users
        ):  # written in place
            continue
        else:
            total += _size(kind)
    root = next((i for i in inner.values() if i.root), None)
    if root is not None and root.opcode == "dynamic-update-slice" and _size(instruction.type):
        return total + _size(inner[root.operands[1]].type, everywhere=True)
    return total + _size(instruction.type)


def _sent(opcode: str, instruction: _Instruction, computation: _Computation, devices: int) -> float:
    """Returns the bytes that a device sends, with ring algorithms over groups of n devices."""
    operands = sum(
        _size(computation[name].type, everywhere=True) for name in instruction.operands if name in computation
    )
    if opcode == "collective-permute":
        return operands
    n = _group_size(instruction.attributes, devices)
    if n <= 1:
        return 0.0
    if opcode == "all-gather":
        return operands * (n - 1)
    return operands * (n - 1) / n * (2 if opcode == "all-reduce" else 1)


def _size(kind: str, everywhere: bool = False) -> float:
    """Returns the bytes of a type, summed over a tuple; ``everywhere`` includes on-chip memory."""
    total = 0.0
    for dtype, dims, layout in _ARRAY.findall(kind):
        if re.search(r"S\([1-9]\d*\)", layout or "") and not everywhere:
            continue
        shape = [int(size) for size in re.findall(r"\d+", dims)]
        total += math.prod(shape) * _width(dtype)
    return total


def _width(dtype: str) -> float:
    if dtype in _BYTES:
        return _BYTES[dtype]
    bits = re.match(r"[a-z]+(\d+)", dtype)
    return int(bits[1]) / 8 if bits else 0


def _first(kind: str) -> str:
    array = _ARRAY.search(kind)
    return array[0] if array else ""


def _last(instruction: _Instruction, opcode: str) -> str:
    """Returns the type of the result, which is the second part of a started operation's (operands, result, context ...)."""
    arrays = [found[0] for found in _ARRAY.finditer(instruction.type)]
    return arrays[min(1, len(arrays) - 1)] if instruction.opcode != opcode and arrays else instruction.type


def _group_size(attributes: str, devices: int) -> int:
    """Returns the size of a group of devices: ``{{0,1},{2,3}}``, ``[4,2]<=[8]`` or ``mesh['a'=4,'b'=2] {'b'}``."""
    if mesh := re.search(r"replica_groups=\w*mesh\w*\[([^\]]*)\] \{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", mesh[2]))
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]", attributes):
        return int(iota[2])
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return len(listed[1].split(","))
    return devices


# The text ------------------------------------------------------------------------------------------------------------


def _parse(text: str) -> tuple[dict[str, _Computation], str | None]:
    computations: dict[str, _Computation] = {}
    entry, current = None, None
    for line in text.splitlines():
        if header := _HEADER.match(_COMMENT.sub("", line)):
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and " = " in line:
            instruction = _instruction(_COMMENT.sub("", line))
            current[instruction.name] = instruction
    return computations, entry


def _instruction(line: str) -> _Instruction:
    left, _, right = line.strip().partition(" = ")
    kind, rest = _balanced(right) if right.startswith("(") else right.split(" ", 1)
    opcode, _, rest = rest.strip().partition("(")
    operands, attributes = _balanced("(" + rest)
    names = re.findall(r"%([\w.\-]+)", operands)
    if opcode in ("parameter", "constant"):
        attributes = operands  # its number, or its value
    return _Instruction(
        left.removeprefix("ROOT ").strip(" %"), kind, opcode, names, attributes, left.startswith("ROOT")
    )


def _balanced(text: str) -> tuple[str, str]:
    """Splits ``text`` after the parenthesis that closes its first one."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[: index + 1], text[index + 1 :]
    return text, ""


def _called(instruction: _Instruction, keys: str) -> list[str]:
    found = re.search(rf"(?:{keys})=(?:\{{([^}}]*)\}}|%([\w.\-]+))", instruction.attributes)
    if not found:
        return []
    return re.findall(r"[\w.\-]+", found[1]) if found[1] else [found[2]]


def _parameter_index(instruction: _Instruction) -> int:
    return int(re.search(r"\d+", instruction.attributes)[0])


def _trip_count(loop: _Instruction, condition: _Computation) -> int:
    """Returns the trip count of a loop: what the compiler says, or else the largest constant in its condition."""
    if known := re.search(r"known_trip_count\W+n\W+(\d+)", loop.attributes):
        return int(known[1])
    constants = [re.search(r"\d+", i.attributes) for i in condition.values() if i.opcode == "constant"]
    return max((int(found[0]) for found in constants if found), default=1)
