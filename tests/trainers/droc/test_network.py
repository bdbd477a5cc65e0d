"""What the networks see: the receptive field, and that all patches at once are the same as patch by patch."""

import pytest
import torch
from torch import nn

from trainers import backbones
from trainers.backbones import STRIDES
from trainers.droc.network import ImageNet, PaddingFree, ResNet18
from trainers.learning.passes import seeded


def pictures(side, count=2):
    return torch.rand((count, 3, side, side), generator=torch.Generator().manual_seed(0))


def ready(network):
    """With batch norms that do something, in evaluation mode, in float64."""
    with seeded(1):
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    return network.double().eval()


@pytest.mark.parametrize("patch", [32, 64])
def test_without_padding_all_patches_at_once_are_the_same_as_one_by_one(patch):
    with seeded(0):
        network = ready(PaddingFree(patch, 0.1))
    assert network.stride_px == patch // 8
    x = pictures(patch + 3 * network.stride_px).double()
    with torch.no_grad():
        dense = network.dense(x)  # (N, D, 4, 4)
        assert dense.shape == (2, network.features, 4, 4)
        for i in range(4):
            for j in range(4):
                top, left = i * network.stride_px, j * network.stride_px
                alone = network(x[:, :, top : top + patch, left : left + patch])
                torch.testing.assert_close(dense[:, :, i, j], alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("patch", [32, 64])
def test_without_padding_the_receptive_field_is_exactly_the_patch(patch):
    """A change of any border pixel of the patch reaches its place; no change outside it does."""
    with seeded(0):
        network = PaddingFree(patch, 0.1).double().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.uniform_(module.weight, 0.01, 0.02)  # positive, so that nothing cancels or is cut off
    stride = network.stride_px
    x = pictures(patch + 2 * stride, 1).double().requires_grad_()
    network.dense(x)[0, :, 1, 1].sum().backward()
    reached = x.grad[0].abs().amax(dim=0) > 0
    want = torch.zeros_like(reached)
    want[stride : stride + patch, stride : stride + patch] = True
    assert torch.equal(reached, want)


def test_resnet_sees_patches_one_by_one():
    with seeded(0):
        network = ready(ResNet18(32, 16, 0.1))
    x = pictures(64).double()
    with torch.no_grad():
        dense = network.dense(x)
        assert dense.shape == (2, network.features, 3, 3)
        for i in range(3):
            for j in range(3):
                alone = network(x[:, :, 16 * i : 16 * i + 32, 16 * j : 16 * j + 32])
                torch.testing.assert_close(dense[:, :, i, j], alone)


def test_the_stem_of_resnet_is_imagenet_s_for_large_pictures_only():
    shapes = {}
    for patch in (32, 64, 128, 256):
        stem = ResNet18(patch, patch, 0.1).stem
        shapes[patch] = (stem[0].kernel_size[0], stem[0].stride[0], len(stem))
    assert shapes == {32: (3, 1, 3), 64: (3, 1, 3), 128: (7, 2, 4), 256: (7, 2, 4)}


def test_a_full_resnet_has_the_published_channels_and_feature():
    network = ResNet18(32, 32, 1.0)
    assert [block.conv1.out_channels for block in network.blocks] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert network.features == 512
    convolutions = sum(p.numel() for p in network.parameters() if p.dim() == 4)
    assert convolutions == 11_159_232  # of ResNet-18, with the 3x3 stem's 1,728 in place of the 7x7 one's 9,408


def test_the_imagenet_baseline_is_the_backbone_s_last_level_averaged():
    backbone = backbones.build("resnet18", 32)
    network = ImageNet(backbone, 32, 16).eval()
    x = pictures(32)
    with torch.no_grad():
        level = (255 * x - network.mean) / network.std
        for index in range(len(STRIDES)):
            level = backbone.level(index, level)
        torch.testing.assert_close(network(x), level.mean(dim=(2, 3)))
        assert network.dense(pictures(64)).shape == (2, network.features, 3, 3)
