"""Grad-CAM (Selvaraju et al. 2017): which features the score rests on, and where the picture shows them.

It needs one layer of features that all of the score passes through: the last one is taken. A network that compares a
picture with its reconstruction, or joins a global and a local model, has none.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from engine.contract import SCORE_NAME
from engine.types import F32, U8
from trainers.explain.question import Question, as_batch
from trainers.explain.rebuild import Rebuilt

MIN_CHANNELS = 8  # fewer are colours or maps, not features
PROBE = "probe"
SHAPE = "shape"  # key of what `_Shapes` notes


@dataclass(frozen=True, slots=True)
class Cam:
    """`values` (h, w): the features' sum, weighted by how much each raises the score; only what is positive counts.

    `layer` is its node's name in the rebuilt graph, `channels` how many features it has.
    """

    values: F32
    layer: str
    channels: int


def grad_cam(question: Question, picture: U8) -> Cam | None:
    """The map of a picture (H, W, 3); None where the network has no layer for it."""
    images = as_batch(picture)
    layer = feature_layer(question.rebuilt, images)
    if layer is None:
        return None
    probed = _probed(question, layer.name)
    probe = probed.rebuilt.network.get_submodule(PROBE)
    found = LayerGradCam(probed.differentiable, probe).attribute(images, relu_attributions=True)
    shape: torch.Size = layer.meta[SHAPE]
    return Cam(found[0, 0].detach().numpy(), layer.name, shape[1])


def feature_layer(rebuilt: Rebuilt, images: Tensor) -> Node | None:
    """The last node that all of the score passes through and that gives (N, C, h, w) features of each picture."""
    network = rebuilt.network
    _Shapes(network).run(torch.cat([images, images]).requires_grad_())
    wanted = rebuilt.outputs.index(SCORE_NAME) if rebuilt.scores_itself else 0
    given = network.graph.output_node().args[0]
    target = given[wanted] if isinstance(given, tuple | list) else given
    if not isinstance(target, Node):
        raise ValueError(f"output {wanted} of the graph is no node: {target!r}")
    found = None
    for node in _on_every_way(network, target):
        if found is not None and node.target is torch.permute:
            break  # what follows has its channels elsewhere
        if _is_features(node.meta.get(SHAPE), images):
            found = node
    return found


def _on_every_way(network: GraphModule, target: Node) -> list[Node]:
    """The nodes, in order, that every way of a gradient from the picture to `target` passes: its dominators."""
    ways: dict[Node, list[Node]] = {}
    for node in network.graph.nodes:
        if SHAPE not in node.meta:
            continue
        before = [ways[given] for given in node.all_input_nodes if given in ways]
        common = set(before[0]).intersection(*before[1:]) if before else set()
        ways[node] = [passed for passed in before[0] if passed in common] + [node] if before else [node]
    return ways[target]


def _is_features(shape: torch.Size | None, images: Tensor) -> bool:
    """Whether it is (2, C, h, w) with enough channels, and not the pictures (2, H, W, 3) themselves."""
    if shape is None or len(shape) != 4 or shape[0] != 2 or shape[1:] == images.shape[1:]:
        return False
    return shape[1] >= MIN_CHANNELS and min(shape[2:]) > 1


def _probed(question: Question, layer: str) -> Question:
    """The same question of a copy of the graph with a module behind the layer, where Captum can look."""
    known = question.rebuilt
    network = copy.deepcopy(known.network)
    network.add_submodule(PROBE, nn.Identity())
    (node,) = (node for node in network.graph.nodes if node.name == layer)
    with network.graph.inserting_after(node):
        probe = network.graph.call_module(PROBE, (node,))
    node.replace_all_uses_with(probe, delete_user_cb=lambda user: user is not probe)
    network.recompile()
    return replace(question, rebuilt=Rebuilt(network, known.outputs, known.mahalanobis, known.head))


class _Shapes(Interpreter):
    """Runs the graph once and notes in the `meta` of every node that has a gradient the shape of what it gave.

    Of several tensors that is the first one's shape.
    """

    def run_node(self, n: Node) -> object:
        found = super().run_node(n)
        tensors = [each for each in (found if isinstance(found, tuple | list) else [found]) if isinstance(each, Tensor)]
        if any(each.requires_grad for each in tensors):
            n.meta[SHAPE] = tensors[0].shape
        return found
