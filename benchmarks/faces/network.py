"""FaceNet with folded layers, for speed, and in bfloat16 if the processor multiplies it fast.

The attack calls the model hundreds of thousands of times. Batch normalisation, biases and residual scales are folded
into the convolutions before them, and images have their channels last. With AMX bfloat16 this is four times as fast as
the plain graph in float32, and the embeddings agree to a cosine of .9999. Figures are still computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from .facenet import DIM, SIDE, FaceNet
from .graphdef import Node
from .models import Images, Matrix

__all__ = ["FaceNetModel", "fast_bfloat16", "to_pixels"]

_ATTACHED = ("BiasAdd", "FusedBatchNorm", "Mul", "Relu")
BATCH = 32
Tensor: TypeAlias = Any  # the type checker runs without torch
# Lays out kernels for oneDNN once per batch size, not at every call: a third faster. torch's compiler calls it too.
_pack = getattr(torch._C._nn, "mkldnn_reorder_conv2d_weight", None) if torch.backends.mkldnn.is_available() else None


def fast_bfloat16() -> bool:
    """Return True if the processor has matrix instructions for bfloat16; without them it is slower than float32."""
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(probe and probe())


def to_pixels(images: Images, side: int) -> Tensor:
    """(n, h, w, c) images as a tensor (n, 3, side, side) of 0 to 255; grey becomes three equal channels."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).float().permute(0, 3, 1, 2)
    return resized(pixels, side)


def resized(pixels: Tensor, side: int) -> Tensor:
    """Resize (n, c, h, w) to (n, 3, side, side); gradients flow."""
    if pixels.shape[2:] != (side, side):
        pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=pixels.shape[2] > side)
    return pixels.expand(-1, 3, -1, -1)


class FaceNetModel:
    """FaceNet for the experiment: (n, h, w, c) images of faces to unit vectors (n, 512).

    Args:
        net: the network with its weights.
        half: whether to use bfloat16; by default if the processor is fast at it.
    """

    name = "facenet"
    dim = DIM

    def __init__(self, net: FaceNet, half: bool | None = None) -> None:
        self.weights_sha256 = net.weights_sha256
        self.half = fast_bfloat16() if half is None else half
        self.exact = _Folded(net, torch.float32)
        self.quick = _Folded(net, torch.bfloat16) if self.half else self.exact

    @property
    def arithmetic(self) -> str:
        """Return the type in which the attack multiplies; figures are computed in float32."""
        return "bfloat16" if self.half else "float32"

    @property
    def exact_model(self) -> FaceNetModel:
        """The same in float32, for figures."""
        exact = copy(self)
        exact.quick = exact.exact
        return exact

    def embed(self, images: Images) -> Matrix:
        """Unit vectors (n, 512)."""
        torch.set_num_threads(1)  # only the calling thread: more threads slow small batches down
        run = self.quick
        out = np.empty((len(images), DIM), np.float32)
        with torch.inference_mode():
            for start in range(0, len(images), BATCH):
                pixels = to_pixels(images[start : start + BATCH], SIDE)
                out[start : start + BATCH] = run(_scaled(pixels)).numpy()
        return out

    def pull(self, images: Images, targets: Matrix) -> tuple[Matrix, Images]:
        """Cosines (n,) to unit targets (n, 512), and their gradient in the images."""
        torch.set_num_threads(1)
        cosines, slopes = np.empty(len(images), np.float32), np.empty(images.shape, np.float32)
        for start in range(0, len(images), BATCH):
            part = slice(start, start + BATCH)
            given = torch.from_numpy(np.ascontiguousarray(images[part], np.float32)).permute(0, 3, 1, 2)
            given.requires_grad_(True)
            made = self.quick(_scaled(resized(given, SIDE)))
            alike = (made * torch.from_numpy(targets[part])).sum(1)
            (slope,) = torch.autograd.grad(alike.sum(), given)
            cosines[part], slopes[part] = alike.detach().numpy(), slope.permute(0, 2, 3, 1).numpy()
        return cosines, slopes


def _scaled(pixels: Tensor) -> Tensor:
    """Apply the fixed scaling of these weights."""
    return ((pixels - 127.5) / 128).contiguous(memory_format=torch.channels_last)


class _Folded:
    """Return the graph with each convolution and the steps after it merged into one."""

    def __init__(self, net: FaceNet, kind: torch.dtype) -> None:
        self._kind = kind
        readers: dict[str, list[str]] = {}
        for name, sources, _ in net.plan:
            for source in sources:
                readers.setdefault(source, []).append(name)
        renamed: dict[str, str] = {}
        folded: set[str] = set()
        self._plan: list[tuple[str, tuple[str, ...], Callable[..., Tensor]]] = []
        for name, sources, step in net.plan:
            if name in folded:
                continue
            inputs, node, end = tuple(renamed.get(i, i) for i in sources), net.nodes[name], name
            if node.op == "Conv2D":
                chain = []
                while len(readers.get(end, ())) == 1 and net.nodes[readers[end][0]].op in _ATTACHED:
                    end = readers[end][0]
                    chain.append(net.nodes[end])
                    if chain[-1].op == "Relu":
                        break
                folded.update(link.name for link in chain)
                renamed[name] = end
                step = self._convolution(node, chain, net.consts)
            elif node.op == "AvgPool":
                step = _mean
            self._plan.append((end, inputs, step))
        self._last = {source: name for name, sources, _ in self._plan for source in sources}
        self._output = net.output

    def __call__(self, pixels: Tensor) -> Tensor:
        values = {"input": pixels.to(self._kind)}
        for name, sources, step in self._plan:
            values[name] = step(*(values[source] for source in sources))
            for source in sources:
                if self._last[source] == name:
                    values.pop(source, None)
        return F.normalize(values[self._output].float(), dim=1)

    def _convolution(self, node: Node, chain: list[Node], consts: Mapping[str, NDArray[Any]]) -> Callable[..., Tensor]:
        kernel = torch.from_numpy(np.ascontiguousarray(consts[node.inputs[1]].transpose(3, 2, 0, 1)))
        bias = torch.zeros(len(kernel))
        for link in chain:
            if link.op == "BiasAdd":
                bias = bias + torch.from_numpy(consts[link.inputs[1]])
            elif link.op == "Mul":
                scale = float(consts[link.inputs[0]])
                kernel, bias = kernel * scale, bias * scale
            elif link.op == "FusedBatchNorm":
                gain, shift, mean, var = (torch.from_numpy(consts[link.inputs[i]]) for i in range(1, 5))
                gain = gain * torch.rsqrt(var + link.attrs["epsilon"].number)
                kernel, bias = kernel * gain[:, None, None, None], bias * gain + shift - mean * gain
        relu = bool(chain) and chain[-1].op == "Relu"
        stride = node.attrs["strides"].integers[1]
        same = node.attrs["padding"].text == b"SAME"
        padding = (kernel.shape[2] // 2, kernel.shape[3] // 2) if same else (0, 0)
        kernel = kernel.to(self._kind).contiguous(memory_format=torch.channels_last)
        bias = bias.to(self._kind)

        packed: dict[torch.Size, Tensor] = {}

        def step(x: Tensor) -> Tensor:
            if x.requires_grad or _pack is None:
                made = F.conv2d(x, kernel, bias, stride, padding)
                return F.relu_(made) if relu else made
            if x.shape not in packed:
                around, stepped = list(padding), [stride, stride]
                packed[x.shape] = _pack(kernel.to_mkldnn(), around, stepped, [1, 1], 1, list(x.shape))
            return torch.ops.mkldnn._convolution_pointwise(
                x, packed[x.shape], bias, padding, (stride, stride), (1, 1), 1, "relu" if relu else "none", [], ""
            )

        return step


def _mean(x: Tensor) -> Tensor:
    return x.float().mean((2, 3))
