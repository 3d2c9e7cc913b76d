"""The masks of :mod:`mlp_lightning.engines.dropout` in a kernel: the same bits, each lane with its own seed.

Shapes: ``L`` lanes.
"""

from __future__ import annotations

from llvmlite import ir

from mlp_lightning.engines.compiled.vectors import INT, Code, Lanes, Value
from mlp_lightning.engines.dropout import LAST_SHIFT, MIX, MULTIPLIERS, OF_ROW, ROUNDS, WEYL

WORD = ir.IntType(32)
#: Which lanes keep a number, one bit each.
KEPT = ir.IntType(16)


def words_of(lanes: Lanes) -> Value:
    """The type of a word of every lane."""
    return ir.VectorType(WORD, lanes.count)


class Words:
    """Writes operations on words.

    Args:
        code: of a function.
    """

    def __init__(self, code: Code) -> None:
        self._code, self._type = code, words_of(code.lanes)
        self._bytes = 4 * code.lanes.count

    def same(self, value: int, type_: Value = None) -> Value:
        """The same number in all lanes."""
        type_ = type_ or self._type
        return ir.Constant(type_, [value] * type_.count)

    def _everywhere(self, number: Value) -> Value:
        return self._code.splat(self._code.builder.trunc(number, WORD))

    def _load(self, pointer: Value, index: int) -> Value:
        return self._code.builder.load(self._code.at(pointer, index), align=self._bytes)

    def write_keys(self, seeds: Value, step: Value, keys: Value, layers: int) -> None:
        """Write the keys of all layers for one step, four words for each two of them.

        Args:
            seeds: both halves of the key of each lane's run.
            step: its number.
            keys: where to write.
            layers: how many there are.
        """
        builder = self._code.builder
        low, high = self._everywhere(step), self._everywhere(builder.lshr(step, ir.Constant(INT, 32)))
        for pair in range((layers + 1) // 2):
            words = self._philox([low, high, self.same(pair), self.same(0)], [self._load(seeds, n) for n in (0, 1)])
            for number, word in enumerate(words):
                builder.store(word, self._code.at(keys, 4 * pair + number), align=self._bytes)

    def _philox(self, counter: list[Value], key: list[Value]) -> list[Value]:
        builder = self._code.builder
        a, b, c, d = counter
        for _ in range(ROUNDS):
            (upper_a, lower_a), (upper_c, lower_c) = self._product(a, MULTIPLIERS[0]), self._product(c, MULTIPLIERS[1])
            a, c = (builder.xor(builder.xor(x, y), z) for x, y, z in ((upper_c, b, key[0]), (upper_a, d, key[1])))
            b, d = lower_c, lower_a
            key = [builder.add(one, self.same(step)) for one, step in zip(key, WEYL, strict=True)]
        return [a, b, c, d]

    def _product(self, word: Value, factor: int) -> tuple[Value, Value]:
        """The upper and the lower half of a product."""
        builder, wide = self._code.builder, ir.VectorType(INT, self._type.count)
        product = builder.mul(builder.zext(word, wide), self.same(factor, wide))
        upper = builder.lshr(product, self.same(32, wide))
        return builder.trunc(upper, self._type), builder.trunc(product, self._type)

    def word(self, keys: Value, row: Value, number: Value) -> Value:
        """The word of a pair of units.

        Args:
            keys: both halves of the key of the layer.
            row: of the step.
            number: of the word in its row.
        """
        code, builder = self._code, self._code.builder
        x = builder.add(self._everywhere(code.plus(code.times(row, OF_ROW), number)), self._load(keys, 0))
        for (shift, multiplier), key in zip(MIX, (None, self._load(keys, 1)), strict=True):
            x = self._fold(x, shift)
            if key is not None:
                x = builder.xor(x, key)
            x = builder.mul(x, self.same(multiplier))
        return self._fold(x, LAST_SHIFT)

    def _fold(self, x: Value, shift: int) -> Value:
        return self._code.builder.xor(x, self._code.builder.lshr(x, self.same(shift)))

    def is_kept(self, word: Value, unit: int, seeds: Value) -> Value:
        """Which lanes keep the first or the second unit of a word.

        Args:
            word: of both.
            unit: 0 or 1.
            seeds: with the smallest word that is kept, behind the keys.
        """
        builder = self._code.builder
        half = word if unit else builder.shl(word, self.same(16))
        return builder.icmp_signed(">=", half, self._load(seeds, 2))

    def keep(self, kept: Value, place: Value, index: Value) -> None:
        """Store which lanes keep a number."""
        builder, count = self._code.builder, self._type.count
        bits = builder.bitcast(kept, ir.IntType(count))
        builder.store(bits if count == KEPT.width else builder.zext(bits, KEPT), self._code.at(place, index))

    def kept(self, place: Value, index: Value) -> Value:
        """The inverse of :meth:`keep`."""
        builder, count = self._code.builder, self._type.count
        bits = builder.load(self._code.at(place, index))
        bits = bits if count == KEPT.width else builder.trunc(bits, ir.IntType(count))
        return builder.bitcast(bits, ir.VectorType(ir.IntType(1), count))
