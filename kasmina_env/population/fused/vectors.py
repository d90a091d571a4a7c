"""Vectors of float32 inside compiled kernels: samples of a minibatch, next to each other in the lanes of a register.

Kernels say which numbers go through the processor together, and keep sums in registers across loops. The compiler finds
neither on its own where rows are as short as a minibatch: it would have to prove that no two rows overlap.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any, TypeVar, cast

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_jitable, register_model, type_callable

WIDTH = 16 if get_host_cpu_features().get("avx512f", False) else 8
# Neither "nnan" nor "ninf": a network that diverges must be seen to.
FAST = ("reassoc", "contract", "nsz", "arcp")

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_VECTOR, _INTS = ir.VectorType(_FLOAT, WIDTH), ir.VectorType(_INT, WIDTH)
_SUFFIX = f"v{WIDTH}f32"


class VectorType(types.Type):  # type: ignore[misc]
    """`WIDTH` numbers of float32."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{WIDTH}")


class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


register_model(VectorType)(_VectorModel)

vector = VectorType()
MEMORY = types.CPointer(types.float32)


FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def inline(function: FunctionT) -> FunctionT:
    """Make a function of kernels, compiled as part of each."""
    return cast(FunctionT, register_jitable(function))


def instruction(result: Any, *arguments: Any) -> Callable[[Callable[..., Any]], Any]:
    """Make a function of kernels from what it emits: ``(builder, *values) -> value``."""

    def decorate(emit: Callable[..., Any]) -> Any:
        def typed(_: Any, *given: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                found = emit(builder, *values)
                return context.get_dummy_value() if found is None else found

            return result(*arguments), generate

        names = ["context", *(f"value{i}" for i in range(len(arguments)))]
        typed.__signature__ = Signature([Parameter(n, Parameter.POSITIONAL_OR_KEYWORD) for n in names])  # type: ignore[attr-defined]
        typed.__name__ = emit.__name__
        return intrinsic(typed)

    return decorate


def _call(builder: Any, name: str, *values: Any, result: Any = _VECTOR) -> Any:
    kind = ir.FunctionType(result, [value.type for value in values])
    flags = () if result == _INTS else FAST
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values, fastmath=flags)


def _spread(builder: Any, value: Any) -> Any:
    empty, first = ir.Constant(_VECTOR, ir.Undefined), ir.Constant(_INT, 0)
    return builder.shuffle_vector(builder.insert_element(empty, value, first), empty, ir.Constant(_INTS, [0] * WIDTH))


# ── memory ──────────────────────────────────────────────────────────────────────────────────────


@instruction(vector, MEMORY, types.int64)
def load(builder: Any, memory: Any, place: Any) -> Any:
    """Numbers from `place` on."""
    return builder.load(builder.bitcast(builder.gep(memory, [place]), _VECTOR.as_pointer()), align=4)


@instruction(types.void, MEMORY, types.int64, vector)
def store(builder: Any, memory: Any, place: Any, value: Any) -> None:
    """Write numbers from `place` on."""
    builder.store(value, builder.bitcast(builder.gep(memory, [place]), _VECTOR.as_pointer()), align=4)


@instruction(vector, types.float32)
def fill(builder: Any, value: Any) -> Any:
    """One number in all lanes."""
    return _spread(builder, value)


# ── arithmetic: + - * / of vectors, or of one and a number ──────────────────────────────────────


def _define(function: Any, instruction: str) -> None:
    def typed(_: Any) -> Any:
        def of(left: Any, right: Any) -> Any:
            if isinstance(left, VectorType) and isinstance(right, (VectorType, types.Number)):
                return vector
            return vector if isinstance(right, VectorType) and isinstance(left, types.Number) else None

        return of

    type_callable(function)(typed)

    def lower(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        both = []
        for kind, value in zip(signature.args, values, strict=True):
            number = value if kind == vector else context.cast(builder, value, kind, types.float32)
            both.append(number if kind == vector else _spread(builder, number))
        return getattr(builder, instruction)(*both, flags=FAST)

    for kinds in ((vector, vector), (vector, types.Number), (types.Number, vector)):
        lower_builtin(function, *kinds)(lower)


for _operators, _name in (
    ((operator.add, operator.iadd), "fadd"),
    ((operator.sub, operator.isub), "fsub"),
    ((operator.mul, operator.imul), "fmul"),
    ((operator.truediv, operator.itruediv), "fdiv"),
):
    for _operator in _operators:
        _define(_operator, _name)


@instruction(types.float32, vector)
def total(builder: Any, value: Any) -> Any:
    """Sum over lanes."""
    return _call(builder, f"llvm.vector.reduce.fadd.{_SUFFIX}", ir.Constant(_FLOAT, -0.0), value, result=_FLOAT)


@instruction(vector, vector)
def root(builder: Any, value: Any) -> Any:
    """Square root."""
    return _call(builder, f"llvm.sqrt.{_SUFFIX}", value)


# ── choice, lane by lane ────────────────────────────────────────────────────────────────────────


@instruction(vector, vector, vector, vector, vector)
def where_less(builder: Any, left: Any, right: Any, yes: Any, no: Any) -> Any:
    """`yes` where left < right, else `no`; a comparison with NaN says no."""
    return builder.select(builder.fcmp_ordered("<", left, right), yes, no)


@instruction(vector, vector, vector, vector, vector)
def where_equal(builder: Any, left: Any, right: Any, yes: Any, no: Any) -> Any:
    """`yes` where left = right, else `no`."""
    return builder.select(builder.fcmp_ordered("==", left, right), yes, no)


@instruction(vector, vector, vector, vector, vector)
def where_beats(builder: Any, new: Any, best: Any, yes: Any, no: Any) -> Any:
    """`yes` where new > best or new is NaN, which so stays the largest of all it is compared with."""
    wins = builder.or_(builder.fcmp_ordered(">", new, best), builder.fcmp_unordered("uno", new, new))
    return builder.select(wins, yes, no)


# ── functions ───────────────────────────────────────────────────────────────────────────────────


@instruction(vector, vector)
def _nearest(builder: Any, value: Any) -> Any:
    return _call(builder, f"llvm.rint.{_SUFFIX}", value)


@instruction(vector, vector)
def _power_of_two(builder: Any, value: Any) -> Any:
    """``2 ** value`` of whole numbers from -126 to 127, by their exponent's bits."""
    whole = _call(builder, f"llvm.fptosi.sat.v{WIDTH}i32.{_SUFFIX}", value, result=_INTS)
    biased = builder.add(whole, ir.Constant(_INTS, [127] * WIDTH))
    return builder.bitcast(builder.shl(biased, ir.Constant(_INTS, [23] * WIDTH)), _VECTOR)


@inline
def clamp(value: Any, low: float, high: float) -> Any:
    """Between two numbers; NaN stays NaN."""
    value = where_less(value, fill(low), fill(low), value)
    return where_less(fill(high), value, fill(high), value)


@inline
def exp(value: Any) -> Any:
    """``e ** value`` by Cephes' polynomial on [-ln 2 / 2, ln 2 / 2] (Moshier 1992)."""
    value = clamp(value, -87.3, 88.3)
    power = _nearest(value * 1.44269504088896341)
    rest = value - power * 0.693359375 - power * -2.12194440e-4
    series = rest * 1.9875691500e-4 + 1.3981999507e-3
    series = series * rest + 8.3334519073e-3
    series = series * rest + 4.1665795894e-2
    series = series * rest + 1.6666665459e-1
    series = series * rest + 5.0000001201e-1
    return (series * rest * rest + rest + 1.0) * _power_of_two(power)


@inline
def tanh(value: Any) -> Any:
    """Hyperbolic tangent by the rational function of Eigen (Guennebaud et al. 2010)."""
    x = clamp(value, -7.99881172180175781, 7.99881172180175781)
    square = x * x
    top = square * -2.76076847742355e-16 + 2.00018790482477e-13
    top = top * square - 8.60467152213735e-11
    top = top * square + 5.12229709037114e-08
    top = top * square + 1.48572235717979e-05
    top = top * square + 6.37261928875436e-04
    top = top * square + 4.89352455891786e-03
    bottom = square * 1.19825839466702e-06 + 1.18534705686654e-04
    bottom = bottom * square + 2.26843463243900e-03
    bottom = bottom * square + 4.89352518554385e-03
    return x * top / bottom


@inline
def sigmoid(value: Any) -> Any:
    """``1 / (1 + exp(-value))``."""
    return fill(1.0) / (exp(value * -1.0) + 1.0)


@inline
def erf(value: Any) -> Any:
    """Error function by the rational function of Eigen."""
    x = clamp(value, -4.0, 4.0)
    square = x * x
    top = square * -2.72614225801306e-10 + 2.77068142495902e-08
    top = top * square - 2.10102402082508e-06
    top = top * square - 5.69250639462346e-05
    top = top * square - 7.34990630326855e-04
    top = top * square - 2.95459980854025e-03
    top = top * square - 1.60960333262415e-02
    bottom = square * -1.45660718464996e-05 - 2.13374055278905e-04
    bottom = bottom * square - 1.68282697438203e-03
    bottom = bottom * square - 7.37332916720468e-03
    bottom = bottom * square - 1.42647390514189e-02
    return x * top / bottom
