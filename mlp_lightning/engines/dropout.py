"""Dropout masks as a pure function of (seed, step, layer, row of the step, unit), the same in every engine.

Philox4x32-10 (Salmon et al., 2011), keyed by the seed, turns the number of a step into a stream of 32-bit words; layer
``l`` takes the words ``2 l`` and ``2 l + 1`` as its key. With it, a hash of two rounds turns a row and a pair of units
into a word, whose halves are compared with the probability in units of 2 ** -16: the lower half for the unit with the
even number. No state is kept, so a run continues with the masks that it would have had, and so does each member of a
stack, whatever trains beside it. ``engines/compiled/dropout.py`` writes the same for its kernel.

Shapes: ``K`` members, ``M`` of them with distinct masks, ``S`` steps, ``B`` rows, ``H`` units of a layer, ``L`` dropout
layers, ``W`` words of a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlp_lightning.networks.dropout import Dropout
from mlp_lightning.tables.randomness import derived_seed

#: What a checkpoint says of the masks of its run.
KIND = "philox4x32-10"
_ALL = 0xFFFFFFFF
#: Of Philox4x32: what both halves are multiplied by, what is added to both keys after a round, and rounds.
MULTIPLIERS, WEYL, ROUNDS = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85), 10
#: What the number of a row is multiplied by: 2 ** 32 over the golden ratio, whose multiples keep the largest distances,
#: so that no two words of a step have the same number as long as they are less than about 2 ** 31.
OF_ROW = 0x9E3779B1
#: Shift and multiplier of both rounds, and the last shift: those of least bias that Wellons' search found
#: (github.com/skeeto/hash-prospector). The second half of the key comes in between.
MIX, LAST_SHIFT = ((16, 0x21F0AAAD), (15, 0xD35A2D97)), 15
#: A probability is a multiple of one over this.
STEPS_OF_PROBABILITY = 2**16
# Words, and keys, that are worked out together, so that they stay in the cache; and steps at most.
_WORDS, _KEYS, _STEPS = 2**16, 2**13, 256


def threshold(probability: float) -> int:
    """A probability in units of 2 ** -16: of 0 itself, of any other at least 1 and less than 2 ** 16."""
    nearest = round(probability * STEPS_OF_PROBABILITY)
    return min(max(nearest, 1), STEPS_OF_PROBABILITY - 1) if probability else 0


def factor_of_kept(probability: float) -> float:
    """What a number that is kept is multiplied by, so that the mean over all masks is the number itself."""
    return STEPS_OF_PROBABILITY / (STEPS_OF_PROBABILITY - threshold(probability))


def key_of(seed: int) -> tuple[int, int]:
    """The key of Philox for a run: lower and upper half."""
    derived = derived_seed(seed, "dropout")
    return derived & _ALL, derived >> 32


def philox(counter: Sequence[Tensor], key: Sequence[Tensor]) -> list[Tensor]:
    """Philox4x32-10: four words for each counter of four, all as int64 from 0 to 2 ** 32 - 1."""
    a, b, c, d = counter
    keys = list(key)
    for _ in range(ROUNDS):
        left, right = a * MULTIPLIERS[0], c * MULTIPLIERS[1]
        a, c = (right >> 32) & _ALL ^ b ^ keys[0], (left >> 32) & _ALL ^ d ^ keys[1]
        b, d = right & _ALL, left & _ALL
        keys = [(one + step) & _ALL for one, step in zip(keys, WEYL, strict=True)]
    return [a, b, c, d]


def signed(words: Tensor) -> Tensor:
    """Words as int32 of the same bits; those that have a sign already keep it."""
    return (((words & _ALL) ^ 2**31) - 2**31).to(torch.int32)


class DropoutMasks:
    """The factors of the numbers that every dropout layer of some members sees.

    Args:
        seeds: of the run of each member.
        probabilities: likewise.
        units: H of each dropout layer, of the widest member.
        like: device and precision.
    """

    def __init__(
        self, seeds: Sequence[int], probabilities: Sequence[float], units: Sequence[int], like: Tensor
    ) -> None:
        self.seeds, self.probabilities, self._units, self._like = list(seeds), list(probabilities), list(units), like
        streams = list(zip(seeds, probabilities, strict=True))
        distinct = list(dict.fromkeys(streams))
        device = like.device
        self._of_member: Tensor | None = None
        if 1 < len(distinct) < len(streams):
            self._of_member = torch.tensor([distinct.index(one) for one in streams], device=device)
        lower_upper_2M = torch.tensor([key_of(seed) for seed, _ in distinct], device=device).T
        self._key = [one[:, None] for one in lower_upper_2M]
        shape = (len(distinct), 1, 1)
        thresholds = [threshold(one) - STEPS_OF_PROBABILITY // 2 for _, one in distinct]
        self._threshold_M11 = torch.tensor(thresholds, dtype=torch.int16, device=device).view(shape)
        kept = [factor_of_kept(one) for _, one in distinct]
        self._factor_M11 = torch.tensor(kept, dtype=like.dtype, device=device).view(shape)
        words = [(one + 1) // 2 for one in units]
        self._layer_W = torch.arange(len(words), device=device).repeat_interleave(torch.tensor(words, device=device))
        self._word_W = torch.cat([torch.arange(one, device=device) for one in words])
        self._starts = [2 * sum(words[:number]) for number in range(len(words))]
        self._number_BW = torch.empty(0, 0, dtype=torch.int32, device=device)
        self._words_SMBW = self._shifted_SMBW = self._number_BW[None, None]
        self._factors: list[Tensor] = []
        # Keys and factors of some steps, from the first on.
        self._first_key, self._keys_2SML = 0, torch.empty(2, 0)
        self._first, self._made = 0, list[tuple[Tensor, ...]]()

    def of_step(self, step: int, rows: int) -> list[Tensor]:
        """For each dropout layer ``(K, B, H)``, or ``(1, B, H)`` if all members have the same masks.

        They are those of this step until the next call.

        Args:
            step: optimizer steps made before.
            rows: B.
        """
        if rows > len(self._number_BW):
            row_B1 = torch.arange(rows, device=self._like.device)[:, None]
            self._number_BW = signed(row_B1 * OF_ROW + self._word_W)
            self._made = []
        if not 0 <= step - self._first < len(self._made):
            self._make(step)
        made = self._made[step - self._first]
        return list(made) if rows == len(self._number_BW) else [one_KBH[:, :rows] for one_KBH in made]

    def select(self, members: Sequence[int], units: Sequence[int]) -> DropoutMasks:
        """Those of some of the members.

        Args:
            members: which.
            units: H of each dropout layer, of the widest of them.
        """
        chosen = [self.seeds[one] for one in members], [self.probabilities[one] for one in members]
        return DropoutMasks(*chosen, units, self._like)

    def _make(self, first_step: int) -> None:
        """The factors of a few steps, which takes hardly longer than those of one."""
        distinct, (rows, words) = len(self._threshold_M11), self._number_BW.shape
        steps = min(_STEPS, max(1, _WORDS // (distinct * rows * words)))
        keys = self._keys(first_step, steps)
        part = min(rows, max(1, _WORDS // (steps * distinct * words)))
        if self._words_SMBW.shape != (steps, distinct, part, words) or self._factors[0].shape[2] != rows:
            # Fresh memory would take longer than what is written into it.
            self._words_SMBW = self._number_BW.new_empty(steps, distinct, part, words)
            self._shifted_SMBW = torch.empty_like(self._words_SMBW)
            self._factors = [self._like.new_empty(steps, distinct, rows, units) for units in self._units]
        for start in range(0, rows, part):
            here = slice(start, start + part)
            halves = self._words(keys, self._number_BW[here]).view(torch.int16)
            for factors_SMBH, at in zip(self._factors, self._starts, strict=True):
                of_layer = halves[..., at : at + factors_SMBH.shape[-1]]
                torch.ge(of_layer, self._threshold_M11, out=factors_SMBH[:, :, here]).mul_(self._factor_M11)
        made = self._factors
        if self._of_member is not None:
            made = [one.index_select(1, self._of_member) for one in made]
        # For each step what its layers have.
        self._first, self._made = first_step, list(zip(*(one.unbind() for one in made), strict=True))

    def _keys(self, first_step: int, steps: int) -> tuple[Tensor, Tensor]:
        """Both halves of the key of each word's layer: ``(S, M, 1, W)``."""
        at = first_step - self._first_key
        if not 0 <= at <= self._keys_2SML.shape[1] - steps:
            at, self._first_key = 0, first_step
            count = max(steps, min(_STEPS, _KEYS // (len(self._threshold_M11) * len(self._units))))
            step_S11 = torch.arange(first_step, first_step + count, device=self._like.device).view(-1, 1, 1)
            pair = torch.arange((len(self._units) + 1) // 2, device=self._like.device)
            words = philox([step_S11 & _ALL, step_S11 >> 32, pair, torch.zeros_like(pair)], self._key)
            # The words of each pair of layers are the keys of the first and then of the second.
            self._keys_2SML = signed(torch.stack([torch.stack(words[half::2], -1).flatten(2) for half in (0, 1)]))
        first, second = self._keys_2SML[:, at : at + steps, :, self._layer_W].unsqueeze(3)
        return first, second

    def _words(self, keys: tuple[Tensor, Tensor], number_BW: Tensor) -> Tensor:
        """``(S, M, B, W)``."""
        first, second = keys
        rows = len(number_BW)
        words, shifted = self._words_SMBW[:, :, :rows], self._shifted_SMBW[:, :, :rows]
        torch.add(number_BW, first, out=words)
        for (shift, multiplier), key in zip(MIX, (None, second), strict=True):
            _fold(words, shifted, shift)
            if key is not None:
                words.bitwise_xor_(key)
            words.mul_(multiplier - (multiplier >> 31 << 32))
        return _fold(words, shifted, LAST_SHIFT)


def _fold(words: Tensor, shifted: Tensor, shift: int) -> Tensor:
    """``words ^= words >> shift`` of numbers without a sign, which torch cannot shift."""
    torch.bitwise_right_shift(words, shift, out=shifted)
    return words.bitwise_xor_(shifted.bitwise_and_(_ALL >> shift))


class ModuleDropout:
    """Gives the dropout layers of one network their masks, step by step.

    Args:
        model: the network.
        layers: its dropout layers.
        seed: of its run.
    """

    def __init__(self, model: nn.Module, layers: Sequence[Dropout], seed: int) -> None:
        self._layers = layers
        like = next(model.parameters()).detach()
        self._masks = DropoutMasks([seed], [layers[0].p], [one.units for one in layers], like)
        self._of_step: list[Tensor] = []

    @classmethod
    def of(cls, model: nn.Module, seed: int) -> ModuleDropout | None:
        """For a network that has such layers; ``None`` for any other."""
        layers = [one for one in model.modules() if isinstance(one, Dropout)]
        return cls(model, layers, seed) if layers else None

    def begin(self, step: int, rows: int) -> None:
        """Before the forward pass of all rows of a step."""
        self._of_step = [one.squeeze(0) for one in self._masks.of_step(step, rows)]
        for layer, factors_BH in zip(self._layers, self._of_step, strict=True):
            layer.factors = factors_BH

    def show(self, rows: slice) -> None:
        """Before the forward pass of some rows of the step."""
        for layer, factors_BH in zip(self._layers, self._of_step, strict=True):
            layer.factors = factors_BH[rows]

    def end(self) -> None:
        """After the steps: the layers are again those of a module that nobody trains."""
        for layer in self._layers:
            layer.factors = None
