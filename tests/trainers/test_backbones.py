"""Backbones: published key names, levels, padding and where weights come from."""

import hashlib
from importlib import util
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from engine.errors import UsageError
from trainers import backbones
from trainers.backbones import weights
from trainers.backbones.efficientnet import same_padding


@pytest.mark.parametrize("name", backbones.SOURCES)
def test_levels_have_strides_4_8_16(name):
    backbone = backbones.build(name, 64)
    x = torch.zeros(2, 3, 64, 64)
    with torch.no_grad():
        for index, (stride, channels) in enumerate(zip(backbones.STRIDES, backbone.channels, strict=True)):
            x = backbone.level(index, x)
            assert x.shape == (2, channels, 64 // stride, 64 // stride)


# Read off torchvision 0.x's resnet18() and wide_resnet50_2().
TORCHVISION = {
    "resnet18": {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_var": (64,),
        "layer1.1.conv2.weight": (64, 64, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer2.0.downsample.1.bias": (128,),
        "layer3.1.bn2.num_batches_tracked": (),
    },
    "wide_resnet50_2": {
        "layer1.0.conv1.weight": (128, 64, 1, 1),
        "layer1.0.conv3.weight": (256, 128, 1, 1),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer2.3.conv2.weight": (256, 256, 3, 3),
        "layer3.5.bn3.weight": (1024,),
    },
}
PARAMETERS = {"resnet18": 11_689_512 - 8_393_728 - 513_000, "wide_resnet50_2": 68_883_240 - 41_971_712 - 2_049_000}


@pytest.mark.parametrize("name", TORCHVISION)
def test_resnets_have_torchvisions_keys_and_sizes(name):
    backbone = backbones.build(name, 64)
    state = backbone.state_dict()
    for key, shape in TORCHVISION[name].items():
        assert state[key].shape == shape
    # torchvision's published count less layer4 and fc
    assert sum(p.numel() for p in backbone.parameters()) == PARAMETERS[name]


def test_lite0_computes_what_its_weight_file_says():
    """The stem and the first two blocks, written out with numpy-style padding from the file's tensors."""
    backbone = backbones.load("efficientnet_lite0", 64)
    state = torch.load(weights.packaged_lite0(), weights_only=True)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()

    def layer(x, conv, norm, stride=1, act=True):
        kernel = state[f"{conv}.weight"].double()
        side = kernel.shape[-1]
        if side > 1:  # TensorFlow's "same"
            total = max((-(-x.shape[-1] // stride) - 1) * stride + side - x.shape[-1], 0)
            x = F.pad(x, (total // 2, total - total // 2) * 2)
        groups = x.shape[1] // kernel.shape[1]
        x = F.conv2d(x, kernel, stride=stride, groups=groups)
        gain, bias, mean, var = (
            state[f"{norm}.{n}"].double()[:, None, None] for n in ("weight", "bias", "running_mean", "running_var")
        )
        x = (x - mean) / (var + 1e-3).sqrt() * gain + bias
        return x.clamp(0, 6) if act else x

    want = layer(x, "_conv_stem", "_bn0", 2)
    b = "_blocks.0."
    want = layer(want, b + "_depthwise_conv", b + "_bn1")
    want = layer(want, b + "_project_conv", b + "_bn2", act=False)
    for i, stride in ((1, 2), (2, 1)):
        b = f"_blocks.{i}."
        y = layer(want, b + "_expand_conv", b + "_bn0")
        y = layer(y, b + "_depthwise_conv", b + "_bn1", stride)
        y = layer(y, b + "_project_conv", b + "_bn2", act=False)
        want = want + y if stride == 1 else y
    with torch.no_grad():
        got = backbone.level(0, x.float())
    np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "want"),
    [(64, 3, 2, (0, 1)), (64, 5, 2, (1, 2)), (64, 3, 1, (1, 1)), (7, 3, 2, (1, 1))],
)
def test_same_padding_puts_the_odd_pixel_after(side, kernel, stride, want):
    assert same_padding(side, kernel, stride).padding == (*want, *want)


def test_unknown_names_and_sides_are_refused():
    with pytest.raises(UsageError, match="resnet19: unknown; choose one of efficientnet_lite0"):
        backbones.build("resnet19", 224)
    for side in (100, 16):
        with pytest.raises(UsageError, match=f"--image-size {side}: expected a multiple of 16"):
            backbones.build("resnet18", side)


def test_weights_load_from_a_file_and_the_classifier_is_left_out(resnet_file):
    loaded = backbones.load(resnet_file, 64)
    saved = torch.load(resnet_file.partition("=")[2], weights_only=True)
    assert torch.equal(loaded.state_dict()["layer3.1.conv2.weight"], saved["layer3.1.conv2.weight"])
    assert not loaded.training


def test_safetensors_load_too(tmp_path):
    state = backbones.build("resnet18", 64).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    loaded = backbones.load(f"resnet18={tmp_path / 'w.safetensors'}", 64)
    assert torch.equal(loaded.state_dict()["conv1.weight"], state["conv1.weight"])


def test_weights_of_another_network_are_refused(resnet_file):
    with pytest.raises(UsageError, match="not the weights of this backbone"):
        backbones.load(resnet_file.replace("resnet18=", "wide_resnet50_2="), 64)


class Evil:
    def __reduce__(self):
        return print, ("unpickled",)


def test_files_are_never_unpickled(tmp_path, capsys):
    torch.save({"conv1.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UsageError, match=r"evil.pth: not a readable weight file"):
        backbones.load(f"resnet18={tmp_path / 'evil.pth'}", 64)
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\x89PNG\r\n\x1a\n", bytes(64), b"\x80\x02}q\x00."])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(UsageError, match=r"w.pth: not "):
        backbones.load(f"resnet18={tmp_path / 'w.pth'}", 64)


def test_nothing_is_downloaded_unasked(tmp_path):
    with pytest.raises(UsageError, match=r"resnet18-f37072fd.pth: the weights are not there; add --download-weights"):
        backbones.load("resnet18", 64, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def served(tmp_path) -> Path:
    """A file under a name that carries its hash, as a web server would have it."""
    content = b"weights"
    path = tmp_path / "web" / f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    path.parent.mkdir()
    path.write_bytes(content)
    return path


def test_a_download_is_verified_and_kept(served, tmp_path):
    cache = tmp_path / "cache"
    path = weights.downloaded(served.as_uri(), cache, allow_download=True)
    assert path.read_bytes() == b"weights"
    served.unlink()
    assert weights.downloaded(served.as_uri(), cache, allow_download=False) == path


def test_a_download_with_another_content_is_refused(served, tmp_path):
    served.write_bytes(b"other")
    with pytest.raises(UsageError, match="does not match the hash in its name"):
        weights.downloaded(served.as_uri(), tmp_path / "cache", allow_download=True)
    assert not (tmp_path / "cache" / served.name).exists()


def test_a_damaged_cache_file_is_refused(served):
    served.write_bytes(b"other")
    with pytest.raises(UsageError, match="SHA-256 starts with"):
        weights.downloaded("https://example.org/" + served.name, served.parent, allow_download=False)


def test_no_network_is_said_plainly(tmp_path):
    with pytest.raises(UsageError, match="cannot be fetched"):
        weights.downloaded("http://127.0.0.1:9/net-00000000.pth", tmp_path, allow_download=True)


def test_lite0_comes_from_its_package():
    assert util.find_spec(weights.LITE0_PACKAGE) is not None
    assert weights.packaged_lite0().is_file()
