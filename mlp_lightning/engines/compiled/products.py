"""The three products of a linear layer, for all lanes and a few rows at once.

Sums go over inputs, outputs or rows in their order, whatever the tiles, so that the number of lanes and registers of a
processor does not change what a lane computes.

Shapes: ``R`` rows of a part of a batch, ``I`` inputs and ``O`` outputs of a layer. A row of weights has ``stride``
vectors, of which ``O`` are used; ``x`` and ``z`` are ``(R, I)`` and ``(R, O)`` without gaps.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from mlp_lightning.engines.compiled.vectors import BIT, INT, Code, Lanes, Value

_Load = Callable[[int, Value], Value]


class Products:
    """Adds functions for the products to a module.

    Args:
        module: of the kernel.
        lanes: its types.
        rows: R.
        sums: that are worked out together, at most.
        bias: whether layers have biases, which follow the weights.
    """

    def __init__(self, module: Value, lanes: Lanes, rows: int, sums: int, bias: bool) -> None:
        self._module, self._lanes, self._rows, self._bias = module, lanes, rows, bias
        # Powers of 2: outputs (or inputs) for all rows, and both sides of a tile of weights.
        self._tile = 1 << (max(1, sums // rows).bit_length() - 1)
        self._side = 1 << ((sums.bit_length() - 1) // 2)

    def function(self, name: str, *types: Value) -> Code:
        """An empty function of the kernel's own, whose pointers point to different things."""
        function = ir.Function(self._module, ir.FunctionType(ir.VoidType(), types), name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        for one in function.args:
            if isinstance(one.type, ir.PointerType):
                one.add_attribute("noalias")
        return Code(function, self._lanes)

    def forward(self, shared: bool) -> Value:
        """``forward(x, weights, biases, z, I, O, stride)``: ``z = x @ weights + biases``.

        Args:
            shared: whether ``x`` has numbers that are the same in all lanes.
        """
        lanes = self._lanes
        x_type = lanes.numbers if shared else lanes.vectors
        code = self.function(f"forward_{shared}", x_type, *[lanes.vectors] * 3, *[INT] * 3)
        x, weights, biases, z, inputs, outputs, stride = code.function.args
        load = code.everywhere if shared else code.load
        x_R = [code.at(x, code.times(row, inputs)) for row in range(self._rows)]
        z_R = [code.at(z, code.times(row, outputs)) for row in range(self._rows)]
        for j, size in code.tiles(outputs, self._tile):
            at = [code.plus(j, y) for y in range(size)]
            initial = [code.load(biases, one) if self._bias else code.number(0) for one in at]
            sums = self._accumulate(
                code,
                [initial] * len(x_R),
                inputs,
                lambda row, i: load(x_R[row], i),
                lambda y, i, at=at: code.load(weights, code.plus(code.times(i, stride), at[y])),
            )
            for row, of_row in enumerate(sums):
                for one, place in zip(of_row, at, strict=True):
                    code.store(one, z_R[row], place)
        code.builder.ret_void()
        return code.function

    def input_gradient(self) -> Value:
        """``input_gradient(delta, weights, out, I, O, stride)``: ``out = delta @ weights.T``."""
        lanes = self._lanes
        code = self.function("input_gradient", *[lanes.vectors] * 3, *[INT] * 3)
        delta, weights, out, inputs, outputs, stride = code.function.args
        delta_R = [code.at(delta, code.times(row, outputs)) for row in range(self._rows)]
        out_R = [code.at(out, code.times(row, inputs)) for row in range(self._rows)]
        for i, size in code.tiles(inputs, self._tile):
            at = [code.plus(i, y) for y in range(size)]
            weights_of = [code.at(weights, code.times(one, stride)) for one in at]
            sums = self._accumulate(
                code,
                [[code.number(0)] * size for _ in delta_R],
                outputs,
                lambda row, j: code.load(delta_R[row], j),
                lambda y, j, weights_of=weights_of: code.load(weights_of[y], j),
            )
            for row, of_row in enumerate(sums):
                for one, place in zip(of_row, at, strict=True):
                    code.store(one, out_R[row], place)
        code.builder.ret_void()
        return code.function

    def weight_gradient(self, shared: bool) -> Value:
        """``weight_gradient(x, delta, weights, biases, I, O, stride, first)``: ``weights += x.T @ delta``.

        With ``first``, what was there before does not count.

        Args:
            shared: whether ``x`` has numbers that are the same in all lanes.
        """
        lanes = self._lanes
        x_type = lanes.numbers if shared else lanes.vectors
        code = self.function(f"weight_gradient_{shared}", x_type, *[lanes.vectors] * 3, *[INT] * 3, BIT)
        x, delta, weights, biases, inputs, outputs, stride, first = code.function.args
        load, zero = code.everywhere if shared else code.load, code.number(0)
        x_R = [code.at(x, code.times(row, inputs)) for row in range(self._rows)]
        delta_R = [code.at(delta, code.times(row, outputs)) for row in range(self._rows)]
        for j, width in code.tiles(outputs, self._side):
            delta_RY = [[code.load(one, code.plus(j, y)) for y in range(width)] for one in delta_R]
            if self._bias:
                for y in range(width):
                    place = code.plus(j, y)
                    total = code.choose(first, zero, code.load(biases, place))
                    for of_row in delta_RY:
                        total = code.add(total, of_row[y])
                    code.store(total, biases, place)
            for i, height in code.tiles(inputs, self._side):
                at = [code.at(weights, code.plus(code.times(code.plus(i, k), stride), j)) for k in range(height)]
                sums = [[code.choose(first, zero, code.load(one, y)) for y in range(width)] for one in at]
                for row, of_row in enumerate(delta_RY):
                    x_I = [load(x_R[row], code.plus(i, k)) for k in range(height)]
                    sums = [
                        [code.fma(one, other, total) for other, total in zip(of_row, totals, strict=True)]
                        for one, totals in zip(x_I, sums, strict=True)
                    ]
                for one, totals in zip(at, sums, strict=True):
                    for y, total in enumerate(totals):
                        code.store(total, one, y)
        code.builder.ret_void()
        return code.function

    def _accumulate(
        self, code: Code, initial: list[list[Value]], count: Value, left: _Load, right: _Load
    ) -> list[list[Value]]:
        """``initial[x][y] + sum(left(x, k) * right(y, k) for k in range(count))``."""
        sums = [[code.variable() for _ in row] for row in initial]
        for places, row in zip(sums, initial, strict=True):
            for place, value in zip(places, row, strict=True):
                code.store(value, place)
        with code.loop(0, count) as k:
            left_X = [left(x, k) for x in range(len(initial))]
            right_Y = [right(y, k) for y in range(len(initial[0]))]
            for places, one in zip(sums, left_X, strict=True):
                for place, other in zip(places, right_Y, strict=True):
                    code.store(code.fma(one, other, code.load(place)), place)
        return [[code.load(place) for place in places] for places in sums]
