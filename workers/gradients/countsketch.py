"""A balanced, deterministic CountSketch: shuffle the entries, flip their signs, sum them in equal buckets.

The CountSketch of Charikar, Chen and Farach-Colton (2002) gives every entry a random bucket and a random sign.
Here the buckets come from a seeded permutation, so that each gets the same number of entries,
and the sum is a reshape and a sum over one axis: no atomic additions, hence the same bits on every run, also on
CUDA.

For vectors g and h of length m and sketches z, w of length p, with sign s_i and bucket b_i of entry i:
    <z, w> = <g, h> + sum over i != j with b_i = b_j of s_i s_j g_i h_j.
The signs are independent and fair, so the second term is 0 in expectation: inner products are unbiased, and so is
the squared norm. Two entries share a bucket with probability at most 1/p, which bounds the variance of the squared
norm by 2 ||g||^4 / p.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from workers.selection.seeds import random_permutation, random_signs


@dataclass(frozen=True, slots=True, eq=False)
class CountSketch:
    """The projection R^m -> R^p of one (seed, role, layer).

    Attributes:
        source: Entry that each slot takes, shape (depth * p,), int64; slot s belongs to bucket s mod p.
        sign: Sign of each slot, shape (depth * p,), float32; 0 in the slots that padding m up to depth * p leaves.
        outputs: p.
    """

    source: torch.Tensor
    sign: torch.Tensor
    outputs: int

    @classmethod
    def of(cls, inputs: int, outputs: int, *, seed: int, role: str, layer: str, device: torch.device) -> CountSketch:
        """The projection of vectors of length ``inputs`` to length ``outputs``, drawn on the CPU."""
        slots = -(-inputs // outputs) * outputs
        source = torch.from_numpy(random_permutation(slots, seed=seed, role=f"{role}/slots", layer=layer))
        entry_sign = torch.from_numpy(random_signs(slots, seed=seed, role=f"{role}/signs", layer=layer)).float()
        sign = torch.where(source < inputs, entry_sign, 0.0)
        return cls(source=source.clamp_(max=inputs - 1).to(device), sign=sign.to(device), outputs=outputs)

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Sketch the last axis: (..., m) in any floating type -> (..., p) float32."""
        spread = values.index_select(-1, self.source).float().mul_(self.sign)
        if self.source.shape[0] == self.outputs:
            return spread
        return spread.view(*spread.shape[:-1], -1, self.outputs).sum(-2)
