"""SparseCoderConfig: shape and sparsity of one sparse coder; upstream's `cfg.json` without `d_in`."""

from typing import Literal, Self

from pydantic import model_validator

from sparsify_core.config.base import Config, option


class SparseCoderConfig(Config):
    """A sparse autoencoder or transcoder."""

    activation: Literal["topk", "groupmax", "batchtopk"] = option("topk", "Sparse coder")
    """Which latents stay active: the k largest of each token (topk), the largest of each of k groups (groupmax), or the
    largest of a whole batch of one process, k per token on average (batchtopk; a trained coder takes those above a
    threshold)."""

    expansion_factor: int = option(32, "Sparse coder", basic=True, ge=1, le=4096, visible_if={"sae.num_latents": "0"})
    """Latents per input dimension; ignored when num_latents is set."""

    normalize_decoder: bool = option(True, "Sparse coder", visible_if={"sae.transcode": "false"})
    """Keep decoder rows at unit norm. Transcoders are never normalized."""

    num_latents: int = option(0, "Sparse coder", unit="latents", ge=0, le=1 << 26)
    """Number of latents; 0 derives it from expansion_factor."""

    k: int = option(32, "Sparse coder", unit="latents", basic=True, ge=1, le=1 << 16)
    """Active latents per token."""

    multi_topk: bool = option(False, "Sparse coder", visible_if={"loss_fn": "fvu", "sae.activation": "!batchtopk"})
    """Also reconstruct from 4k latents and add that FVU with weight 1/8 (Multi-TopK)."""

    skip_connection: bool = option(False, "Sparse coder")
    """Add a linear map from input to output beside the latents."""

    transcode: bool = option(False, "Sparse coder", basic=True)
    """Predict a module's output from its input (transcoder) instead of its output from itself."""

    @model_validator(mode="after")
    def _k_fits(self) -> Self:
        if self.num_latents and self.k > self.num_latents:
            raise ValueError(
                f"k = {self.k} is more than num_latents = {self.num_latents}: lower k or raise num_latents"
            )
        if self.num_latents and self.activation == "groupmax" and self.num_latents % self.k:
            raise ValueError(f"groupmax needs num_latents divisible by k, got {self.num_latents} and {self.k}")
        if self.num_latents and self.multi_topk and 4 * self.k > self.num_latents:
            raise ValueError(f"multi_topk needs num_latents >= 4k = {4 * self.k}, got {self.num_latents}")
        if self.multi_topk and self.activation == "batchtopk":
            raise ValueError("multi_topk is about a fixed number of latents per token: use activation topk or groupmax")
        return self

    def resolve_num_latents(self, d_in: int) -> int:
        """Number of latents for an input of width `d_in`."""
        return self.num_latents or d_in * self.expansion_factor
