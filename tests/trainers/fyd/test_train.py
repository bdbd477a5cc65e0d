"""The learnt parts against independent float64 NumPy, and where gradients go."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.alignment import to_picture
from engine.errors import UsageError
from trainers import backbones
from trainers.base import TrainOptions
from trainers.dataset import resized
from trainers.fyd.alignment import (
    FeatureAlignment,
    ImageAlignment,
    compose,
    inverse,
    pair_distance,
    rotation,
    warp,
)
from trainers.fyd.learn import Learner, learn
from trainers.fyd.model import Network, pick_channels
from trainers.fyd.noncontrastive import NonContrastive, negative_cosine, partners
from trainers.fyd.settings import Settings
from trainers.learning.checkpoint import Checkpoint
from trainers.learning.passes import seeded
from trainers.progress import RecordedProgress

NONE = (False, False, False)
ALL = (True, True, True)


def noise(shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sample(image, x, y):
    """Bilinear value of image (C, H, W) at x, y in -1..1 from edge to edge, clamped at the border."""
    _, h, w = image.shape
    u = min(max(((x + 1) * w - 1) / 2, 0), w - 1)
    v = min(max(((y + 1) * h - 1) / 2, 0), h - 1)
    i, j = min(int(v), h - 2), min(int(u), w - 2)
    a, b = v - i, u - j
    top = (1 - b) * image[:, i, j] + b * image[:, i, j + 1]
    bottom = (1 - b) * image[:, i + 1, j] + b * image[:, i + 1, j + 1]
    return (1 - a) * top + a * bottom


def warped(image, affine):
    """Equation 1 pixel by pixel: aligned(p) = image(A p~)."""
    c, h, w = image.shape
    out = np.empty((c, h, w))
    for i in range(h):
        for j in range(w):
            x, y = affine @ ((2 * j + 1) / w - 1, (2 * i + 1) / h - 1, 1)
            out[:, i, j] = sample(image, x, y)
    return out


AFFINE = np.array([[0.9, -0.2, 0.1], [0.15, 1.1, -0.05]])


def tensor(affine):
    return torch.tensor(affine, dtype=torch.float32)[None]


def test_warp_follows_equation_1():
    x = noise((1, 2, 6, 8))
    want = warped(x[0].double().numpy(), AFFINE)
    np.testing.assert_allclose(warp(x, tensor(AFFINE))[0].numpy(), want, atol=1e-5)


def test_rotation_turns_a_quarter():
    x = noise((1, 1, 4, 4))
    turned = warp(x, rotation(torch.tensor([0.0]), torch.tensor([1.0])))
    # the output's right (x = 1) is sampled below (y = 1): what was below comes to the right
    np.testing.assert_allclose(turned[0, 0].numpy(), np.rot90(x[0, 0].numpy()), atol=1e-5)


def test_compose_is_one_warp_after_another():
    second = np.array([[1.05, 0.1, -0.1], [0.0, 0.95, 0.02]])
    both = compose(tensor(AFFINE), tensor(second))[0].double().numpy()
    lifted = [np.vstack([a, [0, 0, 1]]) for a in (AFFINE, second)]
    np.testing.assert_allclose(both, (lifted[0] @ lifted[1])[:2], atol=1e-6)


def test_inverse_of_an_affine_map():
    want = np.linalg.inv(np.vstack([AFFINE, [0, 0, 1]]))[:2]
    np.testing.assert_allclose(inverse(tensor(AFFINE))[0].numpy(), want, atol=1e-6)


def test_positions_undo_an_alignment():
    """Warping by A and sampling at the network's positions gives back the picture, away from its border."""
    x, y = np.meshgrid(np.linspace(0, 3, 24), np.linspace(0, 3, 24))
    grid = torch.tensor(np.sin(x) + np.cos(y), dtype=torch.float32)[None, None]
    small = np.array([[0.97, -0.1, 0.03], [0.1, 0.97, -0.02]])
    aligned = warp(grid, tensor(small))
    positions = torch.nn.functional.affine_grid(inverse(tensor(small)), [1, 1, 24, 24], align_corners=False)
    back = to_picture(aligned[:, 0].numpy(), positions.numpy())
    inner = np.s_[0, 5:-5, 5:-5]
    np.testing.assert_allclose(back[inner], grid[:, 0].numpy()[inner], atol=0.02)
    assert np.abs(aligned[:, 0].numpy()[inner] - grid[:, 0].numpy()[inner]).max() > 0.1


def test_to_picture_is_grid_sample_with_borders():
    grids, positions = noise((2, 5, 7)), noise((2, 5, 7, 2), 1)
    want = torch.nn.functional.grid_sample(
        grids[:, None], positions, mode="bilinear", padding_mode="border", align_corners=False
    )
    np.testing.assert_allclose(to_picture(grids.numpy(), positions.numpy()), want[:, 0].numpy(), atol=1e-5)


def test_ica_loss_is_equation_2():
    a, b = noise((3, 2, 4, 5)), noise((3, 2, 4, 5), 1)
    d = np.linalg.norm(a.double().numpy() - b.double().numpy(), axis=1)  # over channels, per pixel
    assert float(pair_distance(a, b)) == pytest.approx(d.sum(axis=(1, 2)).mean(), rel=1e-5)


def test_alignments_begin_as_the_identity():
    x = noise((2, 3, 64, 64))
    identity = torch.eye(2, 3).expand(2, 2, 3)
    torch.testing.assert_close(ImageAlignment(64)(x), identity)
    torch.testing.assert_close(FeatureAlignment(3, 64, 0.1)(x), identity)


def test_ica_maps_are_rotations_and_fca_maps_are_bounded():
    x = noise((4, 3, 64, 64))
    with seeded(2):
        ica, fca = ImageAlignment(64), FeatureAlignment(3, 64, 0.1)
    for part in (ica, fca):
        torch.nn.init.normal_(part.localiser.last.weight, std=5, generator=torch.Generator().manual_seed(2))
    linear = ica(x)[:, :, :2]
    torch.testing.assert_close(linear @ linear.transpose(1, 2), torch.eye(2).expand(4, 2, 2))
    torch.testing.assert_close(torch.linalg.det(linear), torch.ones(4))
    assert ica(x)[:, :, 2].abs().max() == 0
    offset = (fca(x) - torch.eye(2, 3)).abs()
    assert 0.09 < offset.detach().max() <= 0.1 + 1e-6  # 1 + 0.1 is rounded to float32


def test_negative_cosine_is_the_mean_over_positions():
    p, z = noise((2, 5, 3, 4)), noise((2, 5, 3, 4), 1)
    a, b = p.double().numpy(), z.double().numpy()
    want = -(a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert float(negative_cosine(p, z)) == pytest.approx(want.mean(), rel=1e-5)


def test_no_gradient_reaches_the_target():
    p, z = noise((2, 5, 3, 4)).requires_grad_(), noise((2, 5, 3, 4), 1).requires_grad_()
    negative_cosine(p, z).backward()
    assert p.grad is not None
    assert p.grad.abs().max() > 0
    assert z.grad is None


def test_noncontrastive_loss_is_equation_4_of_two_views():
    """Algorithm 1 literally: the second view is the shuffled batch, run through f and g by itself."""
    head = NonContrastive(6).eval()  # fixed batch norms: the two passes are independent of each other
    x, partner = noise((4, 6, 3, 3)), torch.tensor([2, 0, 3, 1])
    z1, z2 = head.encoder(x), head.encoder(x[partner])
    p1, p2 = head.predictor(z1), head.predictor(z2)
    want = negative_cosine(p1, z2) / 2 + negative_cosine(p2, z1) / 2
    torch.testing.assert_close(head(x, partner), want)


def test_noncontrastive_gradient_is_that_of_the_predicting_branch():
    """Against finite differences of a loss whose targets are held constant."""
    head = NonContrastive(4).eval().double()
    x, partner = noise((3, 4, 2, 2)).double(), torch.tensor([1, 2, 0])
    weight = head.encoder[0].weight
    targets = head.encoder(x).detach()

    def loss():
        p = head.predictor(head.encoder(x))
        a = -torch.nn.functional.cosine_similarity(p, targets[partner], dim=1).mean()
        return (a - torch.nn.functional.cosine_similarity(p[partner], targets, dim=1).mean()) / 2

    head(x, partner).backward()
    for index in ((0, 0, 0, 0), (5, 2, 0, 0), (100, 3, 0, 0)):
        with torch.no_grad():
            weight[index] += 1e-6
            above = float(loss())
            weight[index] -= 2e-6
            below = float(loss())
            weight[index] += 1e-6
        assert float(weight.grad[index]) == pytest.approx((above - below) / 2e-6, rel=1e-3, abs=1e-9)


def test_partners_pair_each_picture_with_another_one():
    for n in (2, 3, 32):
        partner = partners(n, torch.Generator().manual_seed(n))
        assert sorted(partner.tolist()) == list(range(n))
        assert all(i != j for i, j in enumerate(partner.tolist()))


# The network


def network(settings, seed=0):
    with seeded(seed):
        backbone = backbones.build("resnet18", settings.side_px)
        return Network(backbone, settings, pick_channels(backbone, settings.channels, seed)).eval()


TINY = Settings(backbone="resnet18", side_px=64, epochs=2, batch_size=4)


def images(n=2, seed=0):
    return torch.randint(0, 256, (n, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_features_are_pooled_levels_on_one_grid():
    net = network(replace(TINY, epochs=0))
    with torch.no_grad():
        got = net(images()).numpy()
        x = (images().permute(0, 3, 1, 2) - net.mean) / net.std
        levels = []
        for i in range(3):
            x = net.backbone.level(i, x)
            levels.append(x.double().numpy())
    want = []
    for level in levels:
        side = level.shape[-1]
        padded = np.pad(level, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=np.nan)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        smooth = np.nanmean(windows, axis=(4, 5))  # of the cells that exist
        if side > 8:
            smooth = smooth.reshape(*smooth.shape[:2], 8, side // 8, 8, side // 8).mean(axis=(3, 5))
        want.append(smooth.repeat(8 // smooth.shape[2], axis=2).repeat(8 // smooth.shape[3], axis=3))
    np.testing.assert_allclose(got, np.concatenate(want, axis=1), rtol=1e-3, atol=1e-3)


def test_going_by_way_of_the_unit_range_changes_no_bit():
    net = network(replace(TINY, epochs=0))
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)
    assert torch.equal(net.normalised(every), (every.float().permute(0, 3, 1, 2) - net.mean) / net.std)


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_grid_stride_sets_the_grid(stride):
    with torch.no_grad():
        features = network(replace(TINY, epochs=0, grid_stride_px=stride))(images())
    assert features.shape == (2, 448, 64 // stride, 64 // stride)


def test_channels_are_a_seeded_subset_of_all_features():
    whole, part = network(replace(TINY, epochs=0)), network(replace(TINY, epochs=0, channels=40))
    part.backbone.load_state_dict(whole.backbone.state_dict())
    with torch.no_grad():
        everything, some = whole(images()), part(images())
    starts = (0, 64, 192)
    kept = torch.cat([part.get_buffer(f"picked{i}") + start for i, start in enumerate(starts)])
    assert len(kept) == 40
    assert kept.tolist() == sorted(set(kept.tolist()))
    torch.testing.assert_close(some, everything[:, kept])
    with pytest.raises(UsageError, match=r"--channels 449: the backbone has \d+; give fewer"):
        pick_channels(whole.backbone, 449, seed=0)
    again = pick_channels(whole.backbone, 40, seed=0)
    other = pick_channels(whole.backbone, 40, seed=1)
    assert [p.tolist() for p in again] == [part.get_buffer(f"picked{i}").tolist() for i in range(3)]
    assert [p.tolist() for p in other] != [p.tolist() for p in again]


def test_an_untrained_alignment_changes_nothing():
    plain, aligned = network(replace(TINY, epochs=0)), network(TINY)
    aligned.backbone.load_state_dict(plain.backbone.state_dict())
    with torch.no_grad():
        features, positions = aligned(images())
        torch.testing.assert_close(features, plain(images()), rtol=1e-3, atol=1e-3)
    centres = (2 * np.arange(8) + 1) / 8 - 1
    np.testing.assert_allclose(positions[0, :, :, 0].numpy(), np.tile(centres, (8, 1)), atol=1e-6)
    np.testing.assert_allclose(positions[0, :, :, 1].numpy(), np.tile(centres[:, None], (1, 8)), atol=1e-6)


@pytest.fixture
def aligning():
    """A network whose FCAs do something."""
    net = network(TINY)
    for fca in net.fca:
        torch.nn.init.normal_(fca.localiser.last.weight, std=0.05, generator=torch.Generator().manual_seed(3))
    return net


def test_positions_invert_the_mean_of_the_levels_maps(aligning):
    with torch.no_grad():
        _, positions = aligning(images(1))
        _, affines = aligning.levels(aligning.normalised(images(1)))
    mean = np.mean([affine[0].double().numpy() for affine in affines], axis=0)
    back = np.linalg.inv(np.vstack([mean, [0, 0, 1]]))
    centres = (2 * np.arange(8) + 1) / 8 - 1
    for i, j in np.ndindex(8, 8):
        want = (back @ (centres[j], centres[i], 1))[:2]
        np.testing.assert_allclose(positions[0, i, j].numpy(), want, atol=1e-5)


def test_each_level_is_aligned_after_the_one_before(aligning):
    """FCA i warps the output of block i, which block i + 1 then takes in."""
    net = aligning
    with torch.no_grad():
        pictures = net.normalised(images())
        features, affines = net.levels(pictures)
        x, affine = pictures, torch.eye(2, 3).expand(2, 2, 3)
        for i in range(3):
            x = net.backbone.level(i, x)
            step = net.fca[i](x)
            x, affine = warp(x, step), compose(affine, step)
            torch.testing.assert_close(features[i], x, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(affines[i], affine)
    assert (step - torch.eye(2, 3)).abs().max() > 1e-3


# Learning


def gradients(learner):
    """Which parts a loss reaches: the sum of absolute gradients of each."""
    net, heads = learner.network, learner.heads
    parts = {"backbone": net.backbone, "fca": net.fca, "ica": net.ica, "heads": heads}
    return {
        name: sum(float(p.grad.abs().sum()) for p in part.parameters() if p.grad is not None)
        for name, part in parts.items()
        if part is not None
    }


def test_the_ica_loss_trains_the_ica_alone():
    learner = Learner(network(TINY), replace(TINY, lambda_fas=0.0), seed=0)
    learner.loss(images(4)).backward()
    reached = gradients(learner)
    assert reached.pop("ica") > 0
    assert set(reached.values()) == {0.0}


def test_the_fine_loss_trains_everything():
    learner = Learner(network(TINY), replace(TINY, lambda_ica=0.0), seed=0)
    learner.loss(images(4)).backward()
    assert all(value > 0 for value in gradients(learner).values())


def test_the_joint_loss_is_equation_5():
    def value(**weights):
        learner = Learner(network(TINY), replace(TINY, **weights), seed=0)
        learner.heads.eval()
        return float(learner.loss(images(4)).detach())

    ica = value(lambda_ica=1.0, lambda_fas=0.0)
    fine = value(lambda_ica=0.0, lambda_fas=1.0)
    assert value(lambda_ica=0.5, lambda_fas=3.0) == pytest.approx(0.5 * ica + 3 * fine, rel=1e-4)


def test_optimiser_settings_are_the_papers():
    net = network(TINY)
    learner = Learner(net, TINY, seed=0)
    ica, others = learner.optimiser.param_groups
    assert {id(p) for p in ica["params"]} == {id(p) for p in net.ica.parameters()}
    assert (Settings().lr_ica, Settings().lr_others, Settings().batch_size) == (0.01, 0.0001, 32)
    assert all(group["momentum"] == 0.9 and group["weight_decay"] == 1e-5 for group in (ica, others))
    for share, factor in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0)):
        learner._set_rates(share)
        assert ica["lr"] == pytest.approx(0.01 * factor)
        assert others["lr"] == pytest.approx(0.0001 * factor)


ANGLES = np.linspace(0, math.pi, 64, endpoint=False)


@pytest.fixture(scope="module")
def pictures():
    """Bars at all ANGLES on a plain ground."""
    stack = np.full((len(ANGLES), 64, 64, 3), 60, np.uint8)
    y, x = np.mgrid[:64, :64] - 31.5
    for k, angle in enumerate(ANGLES):
        along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        stack[k][(abs(along) < 26) & (abs(across) < 5)] = 220
    return resized.read(list(stack), 64, RecordedProgress())


def test_ica_learns_to_turn_bars_one_way(pictures):
    """The axes, spread evenly at first, agree after training with the paper's optimiser and the default weight."""
    settings = replace(TINY, fca=NONE, non_contrastive=False, epochs=40, batch_size=32)
    net = network(settings)
    learner = Learner(net, settings, seed=0)
    first = [loss for _, loss in learner.epoch(pictures, 0)]
    for epoch in range(1, settings.epochs):
        last = [loss for _, loss in learner.epoch(pictures, epoch)]
    with torch.no_grad():
        maps = net.ica(net.normalised(torch.from_numpy(pictures.take(range(len(ANGLES))))))
    turned = np.arctan2(maps[:, 1, 0].numpy(), maps[:, 0, 0].numpy())
    assert np.mean(last) < 0.5 * np.mean(first)
    assert abs(np.exp(2j * ANGLES).mean()) < 0.01
    assert abs(np.exp(2j * (ANGLES - turned)).mean()) > 0.9  # a bar looks the same after half a turn


def states(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


@pytest.fixture(scope="module")
def few(pictures):
    return pictures.subset(range(10))


def test_an_interrupted_training_goes_on_to_the_same_bits(few, tmp_path, interrupted):
    whole, broken = network(TINY), network(TINY)
    checkpoint = Checkpoint.beside(tmp_path / "bundle", "one")
    learn(whole, few, 0, Checkpoint.beside(tmp_path / "other", "one"), RecordedProgress())
    interrupted(lambda progress: learn(broken, few, 0, checkpoint, progress))
    resumed, progress = network(TINY), RecordedProgress()
    learn(resumed, few, 0, checkpoint, progress)
    assert any("going on after epoch 1 of 2" in line for line in progress.lines)
    for name, value in states(whole).items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_checkpoint_of_another_training_is_ignored(tmp_path):
    Checkpoint.beside(tmp_path / "bundle", "one").save(1, {})
    assert Checkpoint.beside(tmp_path / "bundle", "one").load() == (1, {})
    assert Checkpoint.beside(tmp_path / "bundle", "two").load() is None


class Evil:
    def __reduce__(self):
        return print, ("unpickled",)


def test_a_checkpoint_is_never_unpickled(tmp_path, capsys):
    checkpoint = Checkpoint.beside(tmp_path / "bundle", "one")
    torch.save({"fingerprint": "one", "epochs": 1, "state": Evil()}, checkpoint.path)
    assert checkpoint.load() is None
    checkpoint.path.write_bytes(b"damaged")
    assert checkpoint.load() is None
    assert "unpickled" not in capsys.readouterr().out


def test_progress_shows_loss_and_epoch(few, tmp_path):
    progress = RecordedProgress()
    learn(network(TINY), few, 0, Checkpoint.beside(tmp_path / "b", ""), progress)
    _, done, note = progress.advances[-1]
    assert done == 2 * len(few)
    assert note.startswith("epoch 2/2 loss ")


# Settings


def test_parts_can_be_switched_off():
    off = network(replace(TINY, ica=False, fca=(False, True, False)))
    assert off.ica is None
    assert [isinstance(part, FeatureAlignment) for part in off.fca] == [False, True, False]
    plain = network(replace(TINY, ica=False, fca=NONE))
    assert not plain.aligns
    assert Learner(plain, plain.settings, 0).heads is not None


def test_an_fca_without_its_loss_is_refused():
    with pytest.raises(ValueError, match="FCA learns from the non-contrastive loss alone"):
        Settings(non_contrastive=False)


def test_options_override_settings(tmp_path):
    options = TrainOptions(tmp_path, tmp_path, epochs=3, backbone="resnet18=f", channels=10, image_size=96)
    settings = Settings().with_options(options)
    assert (settings.epochs, settings.backbone, settings.channels, settings.side_px) == (3, "resnet18=f", 10, 96)
    assert Settings().with_options(TrainOptions(tmp_path, tmp_path)) == Settings()
    assert settings.record()["backbone"] == "resnet18"
    assert settings.record()["fca"] == "1,1,1"
