"""Counter-based random numbers: a function of (seed, example, step), whatever the batch, the order or the shard."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from calipers.errors import BadInput, nearest

__all__ = ["Draws", "philox"]

_WORD = 2**32
_MASK = _WORD - 1
_CALLS = 2**16  # the last counter word holds stream and call, 16 bits each

_MULTIPLY = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(
    counter: tuple[Tensor, Tensor | int, Tensor, Tensor | int], key: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10: four random 32-bit words from a counter of four words and a key of two.

    Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", 2011, section 4.3.

    Arguments:
        counter: four words, int64 in [0, 2³²), of shapes that broadcast.
        key: two words.

    Returns:
        four int64 tensors in [0, 2³²) of the common shape.

    Example:
        >>> zero = torch.zeros((), dtype=torch.int64)
        >>> [hex(int(word)) for word in philox((zero, 0, zero, 0), (0, 0))]
        ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    a, b, c, d = (torch.as_tensor(word) for word in counter)
    j, k = key
    for _ in range(10):
        # A signed product wraps at 2⁶⁴ with the right 64 bits. Its high half is masked before the next product;
        # the low half is not: it only meets an exclusive or that is masked afterwards.
        p, q = a * _MULTIPLY[0], c * _MULTIPLY[1]
        a, b = ((q >> 32) ^ b).bitwise_xor_(j).bitwise_and_(_MASK), q
        c, d = ((p >> 32) ^ d).bitwise_xor_(k).bitwise_and_(_MASK), p
        j, k = (j + _WEYL[0]) & _MASK, (k + _WEYL[1]) & _MASK
    return a, b & _MASK, c, d & _MASK


@dataclass(eq=False)
class Draws:
    """Random numbers for a batch of examples: row n depends on (seed, example[n], step[n], stream, call) alone.

    The first call of every object gives the same numbers, the second call different ones, and so on. The numbers
    do not depend on the rest of the batch, and no global generator is touched. It is also the ``draw`` that
    :func:`calipers.threats.sample` asks for.

    Arguments:
        seed: 0 ≤ seed < 2⁶⁴.
        example: original indices, int64 in [0, 2³²), shape (N,); its device is where the numbers are made.
        step: one number in [0, 2³²), or one per example, shape (N,).
        stream: what the numbers are for, 0 ≤ stream < 2¹⁶; other streams are independent.

    Raises:
        BadInput: if a number is outside its range, or after 2¹⁶ calls.

    Example:
        >>> both = Draws(seed=0, example=torch.tensor([7, 3]), step=1).uniform(4)
        >>> alone = Draws(seed=0, example=torch.tensor([3]), step=1).uniform(4)
        >>> torch.equal(both[1:], alone)
        True
    """

    seed: int
    example: Tensor
    step: int | Tensor
    stream: int = 0
    _calls: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.example.dim() != 1 or self.example.dtype != torch.int64:
            got = f"{self.example.dtype} of shape {tuple(self.example.shape)}"
            raise BadInput("example indices of Draws", expected="int64 of shape (N,)", got=got)
        if isinstance(self.step, Tensor) and (self.step.shape != self.example.shape or self.step.dtype != torch.int64):
            expected = f"an int, or int64 of shape {tuple(self.example.shape)}"
            got = f"{self.step.dtype} of shape {tuple(self.step.shape)}"
            raise BadInput("step of Draws", expected=expected, got=got)
        _check_range("seed", self.seed, 2**64)
        _check_range("example index", self.example, _WORD)
        _check_range("step", self.step, _WORD)
        _check_range("stream", self.stream, 2**16)

    def uniform(self, d: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Uniform in [0, 1), shape (N, d): 24 random bits each in float32, 53 in float64.

        Example:
            >>> Draws(0, torch.arange(2), step=0).uniform(3).shape
            torch.Size([2, 3])
        """
        if dtype == torch.float32:
            words = self._words(math.ceil(d / 4))
            scaled = torch.empty((*words[0].shape, 4), dtype=dtype, device=self.example.device)
            for lane, word in enumerate(words):
                scaled[..., lane] = word >> 8
            return scaled.flatten(1)[:, :d] * 2.0**-24
        if dtype == torch.float64:
            a, b, c, e = self._words(math.ceil(d / 2))
            wide = torch.stack([(a << 21) + (b >> 11), (c << 21) + (e >> 11)], dim=-1)
            return wide.flatten(1)[:, :d].double() * 2.0**-53
        raise BadInput("dtype of random numbers", expected="torch.float32 or torch.float64", got=dtype)

    def normal(self, d: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal, shape (N, d), always finite: Box and Muller's transform of pairs of uniform numbers.

        Float32 numbers reach 5.7 at most, float64 numbers 8.5.

        Example:
            >>> bool(Draws(0, torch.arange(2), step=0).normal(3).isfinite().all())
            True
        """
        half = math.ceil(d / 2)
        # uniform is below 1, so the logarithm stays finite.
        pairs = self.uniform(2 * half, dtype).unflatten(1, (half, 2))
        radius = torch.log1p(-pairs[..., 0]).mul_(-2).sqrt_()
        angle = pairs[..., 1] * (2 * math.pi)
        return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1).flatten(1)[:, :d].contiguous()

    def __call__(self, kind: str, shape: tuple[int, int]) -> Tensor:
        """``uniform`` or ``normal`` numbers of shape (N, d), in float32."""
        kinds = {"uniform": self.uniform, "normal": self.normal}
        if kind not in kinds:
            raise BadInput(
                "kind of random numbers", expected="uniform or normal", got=repr(kind), hint=nearest(kind, kinds)
            )
        n, d = shape
        if n != len(self.example):
            raise BadInput("rows of random numbers", expected=len(self.example), got=n)
        return kinds[kind](d)

    def _words(self, blocks: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Four words (N, blocks) that no earlier call has used."""
        _check_range("calls of one Draws", self._calls, _CALLS)
        block = torch.arange(blocks, device=self.example.device)
        step = self.step.to(block.device)[:, None] if isinstance(self.step, Tensor) else self.step
        last = self.stream * _CALLS + self._calls
        self._calls += 1
        return philox((block, step, self.example[:, None], last), (self.seed & _MASK, self.seed >> 32))


def _check_range(what: str, value: int | Tensor, end: int) -> None:
    if isinstance(value, Tensor):
        if not value.numel():
            return
        low, high = (int(side) for side in value.aminmax())
    else:
        low = high = value
    if low < 0 or high >= end:
        raise BadInput(what, expected=f"0 to {end - 1}", got=low if low < 0 else high)
