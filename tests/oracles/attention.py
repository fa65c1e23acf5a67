"""Attention in the forms that networks write it in, with masks, biases and learned tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FORMS = ("fused", "matmul", "bmm", "einsum")


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d) + bias + mask) v over the dims (..., heads, tokens, d)."""

    def __init__(
        self, form: str, mask: Tensor | None = None, bias: Tensor | None = None, causal: bool = False
    ):
        super().__init__()
        self.form, self.causal = form, causal
        self.register_buffer("mask", mask)
        self.bias = None if bias is None else nn.Parameter(bias)

    def _logits(self, scores: Tensor) -> Tensor:
        if self.bias is not None:
            scores = scores + self.bias
        if self.causal:
            scores = scores + torch.full(scores.shape[-2:], float("-inf")).triu(1).to(scores.dtype)
        if self.mask is None:
            return scores
        if self.mask.dtype == torch.bool:
            return scores.masked_fill(~self.mask, float("-inf"))
        return scores + self.mask.to(scores.dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # (..., N, d), (..., M, d), (..., M, e)
        scale = q.shape[-1] ** -0.5
        if self.form == "fused":
            mask = self.mask
            if self.bias is not None:
                mask = self.bias if mask is None else self._logits(torch.zeros_like(mask, dtype=q.dtype))
            return F.scaled_dot_product_attention(q, k, v, mask, is_causal=self.causal)
        if self.form == "einsum":
            weights = self._logits(torch.einsum("...id,...jd->...ij", q, k) * scale).softmax(-1)
            return torch.einsum("...ij,...je->...ie", weights, v)
        if self.form == "bmm":
            flat = [x.flatten(0, -3) for x in (q, k, v)]
            scores = torch.bmm(flat[0] * scale, flat[1].transpose(1, 2))
            weights = F.softmax(self._logits(scores.view(*q.shape[:-1], k.shape[-2])), dim=-1)
            return torch.bmm(weights.flatten(0, -3), flat[2]).view(*q.shape[:-1], v.shape[-1])
        weights = F.softmax(self._logits(q @ k.transpose(-2, -1) * scale), dim=-1)
        return F.dropout(weights, 0.1, self.training) @ v

    def surrogate(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The same without the sum that softmax divides by: a single token still depends on q and k."""
        scores = self._logits((q @ k.transpose(-2, -1)).float())
        return scores.exp().masked_fill(scores < -90, 0).to(v.dtype) @ v
