"""A network in the ONNX format, small enough to be written by hand: no library for it is needed."""

from __future__ import annotations

import numpy as np

FLOAT = 1


def left_half_stands_out(side: int = 320) -> bytes:
    """A file of U²-Net's form, to which the left half of any picture stands out, and red things a little.

    As there, the first output is the one that counts; here the second says the contrary.
    """
    left = np.where(np.arange(side) < side // 2, 100, 0).astype(np.float32)
    graph = [
        _field(1, _node("Conv", ["picture", "red"], "redness")),
        _field(1, _node("Add", ["redness", "left"], "saliency")),
        _field(1, _node("Neg", ["saliency"], "contrary")),
        _field(2, b"saliency"),
        _field(5, _tensor("red", np.array([1, 0, 0], np.float32).reshape(1, 3, 1, 1))),
        _field(5, _tensor("left", left.reshape(1, 1, 1, side))),
        _field(11, _value("picture", (1, 3, side, side))),
        _field(12, _value("saliency", (1, 1, side, side))),
        _field(12, _value("contrary", (1, 1, side, side))),
    ]
    operators = _field(1, b"") + _field(2, 17)  # the default domain, and its version
    return _field(1, 8) + _field(7, b"".join(graph)) + _field(8, operators)


def _field(number: int, value: int | bytes) -> bytes:
    """A field of a protobuf message: a number or, with their length before them, bytes."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Seven bits to a byte, the lowest first; the eighth says that more follow."""
    written = bytearray()
    while value >= 128:
        written.append(value & 127 | 128)
        value >>= 7
    return bytes([*written, value])


def _node(operator: str, inputs: list[str], output: str) -> bytes:
    names = b"".join(_field(1, name.encode()) for name in inputs) + _field(2, output.encode())
    return names + _field(3, f"{operator} of {output}".encode()) + _field(4, operator.encode())


def _tensor(name: str, values: np.ndarray) -> bytes:
    shape = b"".join(_field(1, length) for length in values.shape)
    return shape + _field(2, FLOAT) + _field(8, name.encode()) + _field(9, values.tobytes())


def _value(name: str, shape: tuple[int, ...]) -> bytes:
    lengths = b"".join(_field(1, _field(1, length)) for length in shape)
    return _field(1, name.encode()) + _field(2, _field(1, _field(1, FLOAT) + _field(2, lengths)))
