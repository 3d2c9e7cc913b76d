"""Writes LLVM's intermediate representation for vectors of lanes; each lane belongs to another member.

Arithmetic never uses flags that assume finite numbers: a NaN stays one, in its own lane.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray

#: A value of the representation. llvmlite has no annotations.
Value = Any

INT = ir.IntType(64)
BIT = ir.IntType(1)


class Lanes:
    """The types of a kernel: numbers of one precision, and vectors of as many as there are lanes.

    Args:
        is_double: whether numbers have 64 bits instead of 32.
        count: of lanes.
        has_fma: whether the processor multiplies and adds at once. Where it does not, LLVM would call a function of C's
            library for each lane, which takes some twenty times as long as a product and a sum.
    """

    def __init__(self, is_double: bool, count: int, has_fma: bool = True) -> None:
        self.is_double = is_double
        self.count = count
        self.has_fma = has_fma
        self.number = ir.DoubleType() if is_double else ir.FloatType()
        self.vector = ir.VectorType(self.number, count)
        self.numbers = self.number.as_pointer()
        self.vectors = self.vector.as_pointer()
        self.bytes = count * (8 if is_double else 4)


class Code:
    """The body of one function while it is written.

    Args:
        function: to write.
        lanes: the types.
    """

    def __init__(self, function: Value, lanes: Lanes) -> None:
        self.function = function
        self.lanes = lanes
        self.builder = ir.IRBuilder(function.append_basic_block())

    # ---- whole numbers and control -----------------------------------------------------------------------

    def int(self, value: Value) -> Value:
        return ir.Constant(INT, value) if isinstance(value, int) else value

    def plus(self, a: Value, b: Value) -> Value:
        return self.builder.add(self.int(a), self.int(b))

    def times(self, a: Value, b: Value) -> Value:
        return self.builder.mul(self.int(a), self.int(b))

    @contextlib.contextmanager
    def loop(self, start: Value, end: Value, step: int = 1) -> Iterator[Value]:
        """The body of ``for value in range(start, end, step)``."""
        builder, before = self.builder, self.builder.block
        head, body, after = (self.function.append_basic_block() for _ in range(3))
        builder.branch(head)
        builder.position_at_end(head)
        value = builder.phi(INT)
        value.add_incoming(self.int(start), before)
        builder.cbranch(builder.icmp_signed("<", value, self.int(end)), body, after)
        builder.position_at_end(body)
        yield value
        value.add_incoming(self.plus(value, step), builder.block)
        builder.branch(head)
        builder.position_at_end(after)

    def tiles(self, count: Value, largest: int) -> Iterator[tuple[Value, int]]:
        """Cut ``range(count)`` into tiles: the start of each and its size, a power of 2 up to ``largest``.

        The body is written once for each size.
        """
        start, size = self.int(0), largest
        while size:
            end = self.builder.and_(self.int(count), self.int(-size))
            with self.loop(start, end, size) as value:
                yield value, size
            start, size = end, size // 2

    def variable(self) -> Value:
        """A place for a vector, which the compiler keeps in a register."""
        with self.builder.goto_entry_block():
            return self.builder.alloca(self.lanes.vector)

    def choose(self, condition: Value, one: Value, other: Value) -> Value:
        return self.builder.select(condition, one, other)

    # ---- memory ------------------------------------------------------------------------------------------

    def at(self, pointer: Value, index: Value) -> Value:
        return self.builder.gep(pointer, [self.int(index)], inbounds=True)

    def load(self, pointer: Value, index: Value = 0) -> Value:
        return self.builder.load(self.at(pointer, index), align=self.lanes.bytes)

    def store(self, value: Value, pointer: Value, index: Value = 0) -> None:
        self.builder.store(value, self.at(pointer, index), align=self.lanes.bytes)

    def scalar(self, pointer: Value, index: Value = 0) -> Value:
        """One number."""
        return self.builder.load(self.at(pointer, index))

    def everywhere(self, pointer: Value, index: Value = 0) -> Value:
        """One number in all lanes."""
        return self.splat(self.scalar(pointer, index))

    def splat(self, number: Value) -> Value:
        vector, index = ir.VectorType(number.type, self.lanes.count), ir.IntType(32)
        nothing = ir.Constant(vector, ir.Undefined)
        first = self.builder.insert_element(nothing, number, ir.Constant(index, 0))
        zeros = ir.Constant(ir.VectorType(index, self.lanes.count), [0] * self.lanes.count)
        return self.builder.shuffle_vector(first, nothing, zeros)

    # ---- arithmetic --------------------------------------------------------------------------------------

    def number(self, value: float) -> Value:
        """The same number in all lanes."""
        return ir.Constant(self.lanes.vector, [float(value)] * self.lanes.count)

    def add(self, a: Value, b: Value) -> Value:
        return self.builder.fadd(a, b)

    def subtract(self, a: Value, b: Value) -> Value:
        return self.builder.fsub(a, b)

    def multiply(self, a: Value, b: Value) -> Value:
        return self.builder.fmul(a, b)

    def divide(self, a: Value, b: Value) -> Value:
        return self.builder.fdiv(a, b)

    def negative(self, a: Value) -> Value:
        return self.builder.fneg(a)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """``a * b + c``, rounded once where the processor can, and else twice."""
        return self._intrinsic("fma", a, b, c) if self.lanes.has_fma else self.add(self.multiply(a, b), c)

    def sqrt(self, a: Value) -> Value:
        return self._intrinsic("sqrt", a)

    def absolute(self, a: Value) -> Value:
        return self._intrinsic("fabs", a)

    def is_less(self, a: Value, b: Value) -> Value:
        """Whether ``a < b``; never with a NaN."""
        return self.builder.fcmp_ordered("<", a, b)

    def at_least(self, x: Value, low: Value) -> Value:
        """The larger of the two; NaN where ``x`` is."""
        return self.choose(self.is_less(x, low), low, x)

    def at_most(self, x: Value, high: Value) -> Value:
        """The smaller of the two; NaN where ``x`` is."""
        return self.choose(self.is_less(high, x), high, x)

    def _intrinsic(self, name: str, *arguments: Value) -> Value:
        lanes, module = self.lanes, self.function.module
        full = f"llvm.{name}.v{lanes.count}f{64 if lanes.is_double else 32}"
        kind = ir.FunctionType(lanes.vector, [lanes.vector] * len(arguments))
        return self.builder.call(module.globals.get(full) or ir.Function(module, kind, full), arguments)

    # ---- functions ---------------------------------------------------------------------------------------

    def polynomial(self, x: Value, coefficients: Sequence[float]) -> Value:
        """By Horner's rule; the coefficient of the highest power first."""
        value = self.number(coefficients[0])
        for one in coefficients[1:]:
            value = self.fma(value, x, self.number(one))
        return value

    def exp(self, x: Value) -> Value:
        """``exp(x)``, of at most the largest power of 2 that has a float."""
        rest, power = self._expm1_of_rest(x)
        return self.fma(rest, power, power)

    def expm1(self, x: Value) -> Value:
        """``exp(x) - 1``, also exact for small ``x``."""
        rest, power = self._expm1_of_rest(x)
        return self.fma(rest, power, self.subtract(power, self.number(1)))

    def _expm1_of_rest(self, x: Value) -> tuple[Value, Value]:
        """``exp(r) - 1`` and ``2 ** n`` for ``x = n * log(2) + r``, by Taylor's series for ``|r| <= log(2) / 2``."""
        builder = self.builder
        if self.lanes.is_double:
            # log(2) as a number whose products with n are exact, and what is left of it.
            high, low, degree, bits, mantissa, limits = 0.693147180369123816, 1.90821492927058770e-10, 14, 64, 52, 708.0
        else:
            high, low, degree, bits, mantissa, limits = 0.693359375, -2.12194440e-4, 7, 32, 23, 87.0
        x = self.at_most(self.at_least(x, self.number(-limits)), self.number(limits))
        # The sum with this number has n in its last bits.
        magic = self.number(1.5 * 2**mantissa)
        shifted = self.fma(x, self.number(1 / math.log(2)), magic)
        n = self.subtract(shifted, magic)
        r = self.fma(n, self.number(-low), self.fma(n, self.number(-high), x))
        series = self.polynomial(r, [1 / math.factorial(k) for k in range(degree, 1, -1)])
        whole = ir.VectorType(ir.IntType(bits), self.lanes.count)
        exponent = builder.shl(builder.bitcast(shifted, whole), _all(whole, mantissa))
        one = _all(whole, (2 ** (bits - mantissa - 2) - 1) << mantissa)
        power = builder.bitcast(builder.add(exponent, one), self.lanes.vector)
        return self.fma(self.multiply(r, r), series, r), power

    def log1p(self, x: Value) -> Value:
        """``log(1 + x)`` for ``0 <= x <= 1``."""
        return self._log_of_ratio(x, self.add(x, self.number(2)), 17 if self.lanes.is_double else 8)

    def log(self, x: Value) -> Value:
        """``log(x)`` for a normal positive number."""
        builder, is_double = self.builder, self.lanes.is_double
        bits, mantissa = (64, 52) if is_double else (32, 23)
        whole = ir.VectorType(ir.IntType(bits), self.lanes.count)
        # x = 2 ** n * m with m from sqrt(1/2) to sqrt(2): n is in the bits above those of sqrt(1/2).
        half = 0x3FE6A09E667F3BCD if is_double else 0x3F3504F3
        over = builder.sub(builder.bitcast(x, whole), _all(whole, half))
        n = builder.ashr(over, _all(whole, mantissa))
        of_m = builder.sub(builder.bitcast(x, whole), builder.shl(n, _all(whole, mantissa)))
        m = builder.bitcast(of_m, self.lanes.vector)
        f = self.subtract(m, self.number(1))
        log_of_m = self._log_of_ratio(f, self.add(m, self.number(1)), 11 if is_double else 5)
        found = self.fma(builder.sitofp(n, self.lanes.vector), self.number(math.log(2)), log_of_m)
        return self.choose(builder.fcmp_unordered("uno", x, x), x, found)

    def _log_of_ratio(self, f: Value, total: Value, terms: int) -> Value:
        """``log(1 + f) = 2 * artanh(f / total)`` with ``total = 2 + f``, as a series."""
        s = self.divide(f, total)
        series = self.polynomial(self.multiply(s, s), [2 / (2 * k + 1) for k in range(terms, -1, -1)])
        return self.multiply(s, series)

    def sigmoid(self, x: Value) -> Value:
        one = self.number(1)
        return self.divide(one, self.add(one, self.exp(self.negative(x))))

    def tanh(self, x: Value) -> Value:
        twice = self.expm1(self.add(x, x))
        return self.divide(twice, self.add(twice, self.number(2)))

    def erf(self, x: Value) -> Value:
        """The error function, by its series where ``|x| < 1`` and by that of its scaled complement elsewhere."""
        near, far = _erf_series(self.lanes.is_double)
        size, square = self.absolute(x), self.multiply(x, x)
        small = self.multiply(x, self.polynomial(square, near))
        scaled = self.divide(self.subtract(size, self.number(_ERF_SCALE)), self.add(size, self.number(_ERF_SCALE)))
        tail = self.multiply(self.polynomial(scaled, far), self.exp(self.negative(square)))
        large = self.subtract(self.number(1), self.divide(tail, self.fma(self.number(2), size, self.number(1))))
        signed = self._intrinsic("copysign", large, x)
        return self.choose(self.is_less(size, self.number(1)), small, signed)


# Of Shepherd and Laframboise (1981), whose function of (x - scale) / (x + scale) is nearly a polynomial.
_ERF_SCALE = 3.75


@functools.cache
def _erf_series(is_double: bool) -> tuple[list[float], list[float]]:
    """Polynomials for the error function: of ``x ** 2`` below 1, and of the scaled number above."""
    from scipy.special import erfcx

    terms, degree = (20, 28) if is_double else (10, 14)
    near = [2 / math.sqrt(math.pi) * (-1) ** k / (math.factorial(k) * (2 * k + 1)) for k in range(terms, -1, -1)]

    # For x from 1 to where the tail is 0 in any precision.
    low, high = ((x - _ERF_SCALE) / (x + _ERF_SCALE) for x in (1, 30))

    def scaled(t: NDArray[np.float64]) -> NDArray[np.float64]:
        x = _ERF_SCALE * (1 + t) / (1 - t)
        return (1 + 2 * x) * erfcx(x)

    fitted = Chebyshev.interpolate(scaled, degree, domain=[low, high])
    return near, [float(one) for one in fitted.convert(kind=Polynomial).coef[::-1]]


def _all(type_: Value, value: int) -> Value:
    return ir.Constant(type_, [value] * type_.count)
