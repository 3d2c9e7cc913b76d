"""Writes the kernel: optimizer steps of a block, each with its forward pass, loss, gradient and update.

Shapes: as in :mod:`mlp_lightning.engines.compiled.shape`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from mlp_lightning.engines.compiled.dropout import KEPT, Words, words_of
from mlp_lightning.engines.compiled.elementwise import ACTIVATIONS, LOSSES
from mlp_lightning.engines.compiled.products import Products
from mlp_lightning.engines.compiled.shape import COUNTS, POINTERS, POINTERS_TO_INTS, POINTERS_TO_NUMBERS, Shape
from mlp_lightning.engines.compiled.updates import RULES
from mlp_lightning.engines.compiled.vectors import INT, Code, Lanes, Value


class Writer:
    """Writes the representation of a kernel."""

    def __init__(self, shape: Shape, lanes: Lanes, sums: int) -> None:
        self.module = ir.Module("mlp")
        self._shape, self._lanes = shape, lanes
        self._options = dict(shape.options)
        self._rule = RULES[shape.optimizer]
        self._activation = ACTIVATIONS[shape.activation]
        self._datum = lanes.numbers if shape.shared else lanes.vectors
        products = Products(self.module, lanes, shape.rows, sums, shape.bias)
        self._products = products
        self._forward, self._weight_gradient = products.forward(False), products.weight_gradient(False)
        self._first_forward, self._first_weight_gradient = self._forward, self._weight_gradient
        if shape.shared:
            self._first_forward, self._first_weight_gradient = products.forward(True), products.weight_gradient(True)
        self._input_gradient = products.input_gradient()
        self._activate, self._differentiate = self._make_activate(), self._make_differentiate()
        self._loss, self._update = self._make_loss(), self._make_update()
        self._make_train()

    # ---- functions over vectors --------------------------------------------------------------------------

    def _make_activate(self) -> Value:
        """``activate(z, a, mask, units, …)`` for R rows; without dropout ``a`` may be ``z``.

        With dropout, what its gradient needs stays in ``z``, ``a`` is what is left of it, and the further arguments are
        the keys of the layer, the number of the first row, seeds and factor, and where bits are kept.
        """
        shape, of_dropout = self._shape, []
        if shape.drops:
            of_dropout = [*[words_of(self._lanes).as_pointer()] * 2, self._lanes.vectors, KEPT.as_pointer(), INT]
        code = self._function("activate", *[self._lanes.vectors] * 3, INT, *of_dropout)
        z, a, mask, units, *given = code.function.args
        for row in range(shape.rows):
            for first, size in code.tiles(units, 2 if shape.drops else 1):
                word = self._word(code, given, row, first) if shape.drops else None
                for number in range(size):
                    unit = code.plus(first, number)
                    at = code.plus(code.times(row, units), unit)
                    value = self._activation.forward(code, code.load(z, at))
                    if shape.masked:
                        value = code.multiply(value, code.load(mask, unit))
                    if shape.drops:
                        if not self._activation.keeps_input:
                            code.store(value, z, at)
                        value = self._drop(code, given, word, number, at, value)
                    code.store(value, a, at)
        code.builder.ret_void()
        return code.function

    @staticmethod
    def _word(code: Code, given: Sequence[Value], row: int, first: Value) -> Value:
        keys, *_, first_row = given
        return Words(code).word(keys, code.plus(first_row, row), code.builder.lshr(first, code.int(1)))

    @staticmethod
    def _drop(code: Code, given: Sequence[Value], word: Value, number: int, at: Value, value: Value) -> Value:
        _, seeds, factor, bits, _ = given
        words = Words(code)
        is_kept = words.is_kept(word, number, seeds)
        words.keep(is_kept, bits, at)
        return code.multiply(value, code.choose(is_kept, code.load(factor), code.number(0)))

    def _make_differentiate(self) -> Value:
        """``differentiate(gradient, kept, count, …)``, in place; with dropout, its factor and bits follow."""
        of_dropout = [self._lanes.vectors, KEPT.as_pointer()] if self._shape.drops else []
        code = self._function("differentiate", *[self._lanes.vectors] * 2, INT, *of_dropout)
        gradient, kept, count, *given = code.function.args
        with code.loop(0, count) as at:
            delta = code.load(gradient, at)
            if given:
                factor = code.choose(Words(code).kept(given[1], at), code.load(given[0]), code.number(0))
                delta = code.multiply(delta, factor)
            code.store(self._activation.backward(code, delta, code.load(kept, at)), gradient, at)
        code.builder.ret_void()
        return code.function

    def _make_loss(self) -> Value:
        """``loss(z, targets, share, smoothing, total, C)``: adds that of R rows; ``z`` becomes the gradient."""
        vectors = self._lanes.vectors
        code = self._function("loss", vectors, self._datum, *[vectors] * 3, INT)
        z, targets, share, smoothing, total, outputs = code.function.args
        load = code.everywhere if self._shape.shared else code.load
        for row in range(self._shape.rows):
            first = code.times(row, outputs)

            def target(k: Value, first: Value = first) -> Value:
                value = load(targets, code.plus(first, k))
                if self._shape.smoothed:
                    value = code.fma(value, code.load(smoothing), code.load(smoothing, 1))
                return value

            of_row = LOSSES[self._shape.task](code, code.at(z, first), target, code.load(share, row), outputs)
            code.store(code.add(code.load(total), of_row), total)
        code.builder.ret_void()
        return code.function

    def _make_update(self) -> Value:
        """``update(weights, gradient, states, rates, factors, decay, scale, count, state_size)``: some weights."""
        vectors, shape = self._lanes.vectors, self._shape
        code = self._function("update", *[vectors] * 4, self._lanes.numbers, *[vectors] * 2, INT, INT)
        weights, gradient, states, rates, factors, decay, scale, count, state_size = code.function.args
        names = self._rule.states(self._options)
        step_factors = [code.everywhere(factors, number) for number in range(self._factor_count())]
        rate = code.load(rates)
        loses = code.negative(rate)
        with code.loop(0, count) as at:
            weight, g = code.load(weights, at), code.load(gradient, at)
            if shape.clip == "norm":
                g = code.multiply(g, code.load(scale))
            elif shape.clip == "value":
                limit = code.load(scale)
                g = code.at_most(code.at_least(g, code.negative(limit)), limit)
            if shape.decay == "coupled":
                g = code.fma(weight, code.load(decay), g)
            elif shape.decay == "decoupled":
                weight = code.multiply(weight, code.fma(loses, code.load(decay), code.number(1)))
            places = [code.plus(code.times(state_size, number), at) for number in range(len(names))]
            before = [code.load(states, place) for place in places]
            direction, after = self._rule.direction(code, self._options, g, before, step_factors)
            for value, place in zip(after, places, strict=True):
                code.store(value, states, place)
            code.store(code.fma(loses, direction, weight), weights, at)
        code.builder.ret_void()
        return code.function

    def _factor_count(self) -> int:
        of_one_step = self._rule.factors(self._options, {"step": 0, "mu_product": 1.0}, 1, False)
        return len(of_one_step[0]) if of_one_step else 0

    def _function(self, name: str, *types: Value) -> Code:
        return self._products.function(name, *types)

    # ---- the steps ---------------------------------------------------------------------------------------

    def _make_train(self) -> None:
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [INT.as_pointer()]), "train")
        code = Code(function, self._lanes)
        steps = _Steps(code, self._lanes, self._shape, self._read(code, function.args[0]))
        with code.loop(0, steps.given["steps"]) as step:
            self._write_step(code, steps, step)
        code.builder.ret_void()

    def _read(self, code: Code, arguments: Value) -> dict[str, Value]:
        """The fields of :class:`Arguments`, as pointers of the right type."""
        types = {
            **dict.fromkeys(POINTERS_TO_INTS, INT.as_pointer()),
            **dict.fromkeys(POINTERS_TO_NUMBERS, self._lanes.numbers),
            "share": self._datum,
            "seeds": words_of(self._lanes).as_pointer(),
        }
        given: dict[str, Value] = {}
        for number, name in enumerate((*POINTERS, *COUNTS)):
            value = code.scalar(arguments, number)
            if name in POINTERS:
                value = code.builder.inttoptr(value, types.get(name, self._lanes.vectors))
            given[name] = value
        return given

    def _write_step(self, code: Code, steps: _Steps, step: Value) -> None:
        given, call = steps.given, code.builder.call
        code.store(code.number(0), given["losses"], step)
        first_row = code.times(step, given["row_step"])
        if self._shape.drops:
            number = code.plus(given["first_step"], step)
            Words(code).write_keys(given["seeds"], number, steps.keys, self._shape.depth)
        with code.loop(0, given["rows"], self._shape.rows) as row:
            is_first = code.builder.icmp_signed("==", row, code.int(0))
            steps.stage(first_row, row)
            self._write_forward(code, steps, row)
            steps.keep_logits(step, row)
            loss = code.at(given["losses"], step)
            last = steps.z[-1]
            call(self._loss, [last, steps.targets, steps.share, given["smoothing"], loss, steps.widths[-1]])
            self._write_backward(code, steps, is_first)
        self._write_update(code, steps, step)

    def _write_forward(self, code: Code, steps: _Steps, row: Value) -> None:
        call, depth, mask = code.builder.call, self._shape.depth, steps.given["mask"]
        for layer in range(depth + 1):
            product = self._forward if layer else self._first_forward
            sizes = [steps.widths[layer], steps.widths[layer + 1], steps.strides[layer + 1]]
            x = steps.a[layer - 1] if layer else steps.features
            call(product, [x, steps.weights[layer], steps.biases[layer], steps.z[layer], *sizes])
            if layer < depth:
                of_dropout = []
                if self._shape.drops:
                    keys = code.at(steps.keys, 2 * layer)
                    of_dropout = [keys, steps.given["seeds"], steps.given["kept"], steps.bits[layer], row]
                call(self._activate, [steps.z[layer], steps.a[layer], mask, steps.widths[layer + 1], *of_dropout])
                mask = code.at(mask, steps.strides[layer + 1])

    def _write_backward(self, code: Code, steps: _Steps, is_first: Value) -> None:
        call, delta = code.builder.call, steps.z[-1]
        for layer in range(self._shape.depth, -1, -1):
            product = self._weight_gradient if layer else self._first_weight_gradient
            sizes = [steps.widths[layer], steps.widths[layer + 1], steps.strides[layer + 1]]
            x = steps.a[layer - 1] if layer else steps.features
            call(product, [x, delta, steps.gradient[layer], steps.bias_gradient[layer], *sizes, is_first])
            if layer:
                below = steps.delta[layer - 1]
                call(self._input_gradient, [delta, steps.weights[layer], below, *sizes])
                count = code.times(self._shape.rows, steps.widths[layer])
                of_dropout = [steps.given["kept"], steps.bits[layer - 1]] if self._shape.drops else []
                # Activations that need their output have it there, too.
                call(self._differentiate, [below, steps.z[layer - 1], count, *of_dropout])
                delta = below

    def _write_update(self, code: Code, steps: _Steps, step: Value) -> None:
        given = steps.given
        rates = code.at(given["rates"], code.times(step, given["rate_step"]))
        factors = code.at(given["factors"], code.times(step, self._factor_count()))
        scale = given["clip"]
        if self._shape.clip == "norm":
            scale = steps.clip_scale()

        def update(at: Value, count: Value) -> None:
            places = [code.at(given[name], at) for name in ("weights", "gradient", "states")]
            code.builder.call(self._update, [*places, rates, factors, given["decay"], scale, count, given["size"]])

        steps.each_row(update)


class _Steps:
    """Where everything is that a step reads and writes.

    Args:
        code: of the function that trains.
        lanes: the types.
        shape: of the kernel.
        given: the arguments.
    """

    def __init__(self, code: Code, lanes: Lanes, shape: Shape, given: dict[str, Value]) -> None:
        self._code, self._lanes, self._shape, self.given = code, lanes, shape, given
        sizes = range(shape.depth + 2)
        self.widths = [code.scalar(given["widths"], one) for one in sizes]
        self.strides = [code.scalar(given["strides"], one) for one in sizes]
        self._lay_out_weights()
        self._lay_out_scratch()

    def _lay_out_weights(self) -> None:
        code, given = self._code, self.given
        self.offsets: list[Value] = []
        self.bias_offsets: list[Value] = []
        at = code.int(0)
        for layer in range(self._shape.depth + 1):
            self.offsets.append(at)
            at = code.plus(at, code.times(self.strides[layer], self.strides[layer + 1]))
            self.bias_offsets.append(at)
            if self._shape.bias:
                at = code.plus(at, self.strides[layer + 1])
        self.weights, self.gradient = (
            [code.at(given[name], one) for one in self.offsets] for name in ("weights", "gradient")
        )
        self.biases, self.bias_gradient = (
            [code.at(given[name], one) for one in self.bias_offsets] for name in ("weights", "gradient")
        )

    def _lay_out_scratch(self) -> None:
        code, shape, rows = self._code, self._shape, self._shape.rows
        place = self.given["scratch"]

        def take(width: Value) -> Value:
            nonlocal place
            mine, place = place, code.at(place, code.times(rows, width))
            return mine

        hidden = self.widths[1:-1]
        datum = self._lanes.numbers if shape.shared else self._lanes.vectors
        self.features = code.builder.bitcast(take(self.widths[0]), datum)
        self.targets = code.builder.bitcast(take(self.widths[-1]), datum)
        self.share = take(1)
        self.z = [take(width) for width in (*hidden, self.widths[-1])]
        # The output of an activation may take the place of its input if nobody needs that any more.
        in_place = not (ACTIVATIONS[shape.activation].keeps_input or shape.drops)
        self.a = self.z[:-1] if in_place else [take(width) for width in hidden]
        self.delta = [take(width) for width in hidden]
        if shape.drops:
            self.bits = [code.builder.bitcast(take(width), KEPT.as_pointer()) for width in hidden]
            self.keys = code.builder.bitcast(take(2 * shape.depth + 2), words_of(self._lanes).as_pointer())

    def each_row(self, write: Callable[[Value, Value], None]) -> None:
        """Write something for every row of weights, and for the biases of every layer: their place and number."""
        code = self._code
        for layer in range(self._shape.depth + 1):
            outputs, stride = self.widths[layer + 1], self.strides[layer + 1]
            with code.loop(0, self.widths[layer]) as row:
                write(code.plus(self.offsets[layer], code.times(row, stride)), outputs)
            if self._shape.bias:
                write(self.bias_offsets[layer], outputs)

    def stage(self, first_row: Value, row: Value) -> None:
        """Copy features, targets and shares of the next R rows; those behind the batch count 0."""
        code, given, shape, builder = self._code, self.given, self._shape, self._code.builder
        for number in range(shape.rows):
            here = code.plus(row, number)
            at = code.plus(first_row, here)
            counts = builder.icmp_signed("<", here, given["rows"])
            load = code.everywhere if shape.shared else code.load
            share = code.choose(counts, load(given["share"], at), code.number(0))
            code.store(share, self.share, number)
            for source, to, width in (
                (given["features"], self.features, self.widths[0]),
                (given["targets"], self.targets, self.widths[-1]),
            ):
                self._stage_row(source, code.at(to, code.times(number, width)), at, width)

    def _stage_row(self, source: Value, to: Value, at: Value, width: Value) -> None:
        code, count = self._code, self._lanes.count
        if self._shape.shared:
            row = code.at(source, code.times(code.scalar(self.given["order"], at), width))
            with code.loop(0, width) as column:
                code.builder.store(code.scalar(row, column), code.at(to, column))
            return
        numbers = code.builder.bitcast(to, self._lanes.numbers)
        with code.loop(0, count) as lane:
            index = code.scalar(self.given["order"], code.plus(code.times(at, count), lane))
            row = code.at(source, code.times(index, width))
            with code.loop(0, width) as column:
                place = code.at(numbers, code.plus(code.times(column, count), lane))
                code.builder.store(code.scalar(row, column), place)

    def keep_logits(self, step: Value, row: Value) -> None:
        """Copy the logits of R rows of a logged step."""
        code, given, rows, outputs = self._code, self.given, self._shape.rows, self.widths[-1]
        builder = code.builder
        after = code.plus(step, given["log_from"])
        is_logged = builder.icmp_signed("==", builder.srem(after, given["log_every"]), code.int(0))
        rounded = code.times(builder.sdiv(code.plus(given["rows"], rows - 1), code.int(rows)), rows)
        number = builder.sdiv(after, given["log_every"])
        place = code.times(code.plus(code.times(number, rounded), row), outputs)
        count = code.choose(is_logged, code.times(rows, outputs), code.int(0))
        with code.loop(0, count) as at:
            code.store(code.load(self.z[-1], at), given["logits"], code.plus(place, at))

    def clip_scale(self) -> Value:
        """Where the factor is that makes the norm of each lane's gradient at most the limit, as torch clips it."""
        code, given = self._code, self.given
        total = code.variable()
        code.store(code.number(0), total)

        def add(at: Value, count: Value) -> None:
            with code.loop(0, count) as number:
                g = code.load(given["gradient"], code.plus(at, number))
                code.store(code.fma(g, g, code.load(total)), total)

        self.each_row(add)
        norm = code.add(code.sqrt(code.load(total)), code.number(1e-6))
        scale = code.at_most(code.divide(code.load(given["clip"]), norm), code.number(1))
        code.store(scale, self.share)
        return self.share
