"""What stands beside a trained encoder: pixels, and random weights with fitting BatchNorm statistics."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from ownlatent import backbones
from ownlatent.backbones.encoder import Encoder
from ownlatent.evaluation.baselines import Pixels, calibrate_batchnorm

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def encoder() -> Encoder:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3, stride=2),
        nn.BatchNorm2d(5, momentum=0.3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return Encoder(backbones.create(net, channels=3, image_size=12), 12, MEAN, STD)


def images(n: int, seed: int = 0) -> Tensor:
    """Uint8 images that differ in brightness."""
    generator = torch.Generator().manual_seed(seed)
    light = 0.3 + 0.7 * torch.rand((n, 1, 1, 1), generator=generator)
    return (light * torch.randint(0, 256, (n, 3, 12, 12), generator=generator)).to(torch.uint8)


def first_maps(subject: Encoder, batch: Tensor) -> Tensor:
    """What the first BatchNorm sees, in double precision, as (4, pixels)."""
    x = (batch.double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return nn.functional.conv2d(x, subject.backbone.net[0].weight.double()).transpose(0, 1).flatten(1)


def test_pixels_as_features():
    batch = images(3)
    features = Pixels()(batch)
    assert features.shape == (3, 3 * 12 * 12)
    torch.testing.assert_close(features[1], batch[1].reshape(-1) / 255)
    torch.testing.assert_close(Pixels()(batch / 255), features)


def test_large_images_are_averaged_down():
    batch = torch.randint(0, 256, (2, 1, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    means = batch.float().view(2, 32, 2, 32, 2).mean((2, 4)).flatten(1) / 255
    torch.testing.assert_close(Pixels()(batch), means)


def test_deep_pixels_have_their_own_full_scale():
    batch = torch.tensor([0, 2048, 4095, 60000], dtype=torch.uint16).view(1, 1, 2, 2)
    torch.testing.assert_close(Pixels(4095.0)(batch), torch.tensor([[0, 2048 / 4095, 1, 1]]))


def test_calibration_gives_the_true_mean_and_variance():
    """In one batch both are exact (the variance unbiased, as PyTorch keeps it), in the second layer too."""
    subject, batch = encoder(), images(100)
    calibrate_batchnorm(subject, batch)
    net = subject.backbone.net
    maps = first_maps(subject, batch)
    torch.testing.assert_close(net[1].running_mean.double(), maps.mean(1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(net[1].running_var.double(), maps.var(1), atol=1e-5, rtol=1e-5)

    normal = (maps - maps.mean(1, keepdim=True)) / (maps.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    second = nn.functional.conv2d(
        normal.clamp(min=0).view(4, 100, 10, 10).transpose(0, 1),
        net[3].weight.double(),
        net[3].bias.double(),
        stride=2,
    )
    second = second.transpose(0, 1).flatten(1)
    torch.testing.assert_close(net[4].running_mean.double(), second.mean(1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(net[4].running_var.double(), second.var(1), atol=1e-5, rtol=1e-5)


def test_calibrated_encoder_has_normalised_maps():
    """In evaluation mode the last BatchNorm's output has mean 0 over the calibration images."""
    subject, batch = encoder(), images(200)
    calibrate_batchnorm(subject, batch)
    with torch.no_grad():
        features = subject.eval()(batch)
    torch.testing.assert_close(features.mean(0), torch.zeros(5), atol=1e-3, rtol=0)


def test_equal_batches_are_averaged_equally():
    """Four batches: the mean is exact; the variance lacks only what the batches' means differ by."""
    subject, batch = encoder(), images(256)
    calibrate_batchnorm(subject, batch, batch_size=64)
    norm, maps = subject.backbone.net[1], first_maps(subject, batch)
    parts = [first_maps(subject, part) for part in batch.split(64)]
    torch.testing.assert_close(norm.running_mean.double(), maps.mean(1), atol=1e-5, rtol=1e-5)
    within = torch.stack([part.var(1) for part in parts]).mean(0)
    torch.testing.assert_close(norm.running_var.double(), within, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(norm.running_var.double(), maps.var(1), atol=0, rtol=0.02)


def test_short_last_batch_counts_by_its_images():
    """Two unusual images left over must weigh as two of 258, not as much as the 256 before them."""
    subject, batch = encoder(), images(258)
    batch[256:] = 255
    calibrate_batchnorm(subject, batch, batch_size=256)
    mean = first_maps(subject, batch).mean(1)
    torch.testing.assert_close(subject.backbone.net[1].running_mean.double(), mean, atol=1e-3, rtol=1e-2)


def test_old_statistics_are_forgotten():
    subject, batch = encoder(), images(50)
    subject.train()(images(50, seed=7))
    calibrate_batchnorm(subject, batch)
    torch.testing.assert_close(
        subject.backbone.net[1].running_mean.double(), first_maps(subject, batch).mean(1), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("training", [True, False])
def test_momenta_mode_and_weights_are_as_before(training: bool):
    subject = encoder().train(training)
    before = deepcopy(dict(subject.named_parameters()))
    calibrate_batchnorm(subject, images(20))
    net = subject.backbone.net
    assert (net[1].momentum, net[4].momentum) == (0.1, 0.3)
    assert subject.training == training and net[1].training == training
    for name, parameter in subject.named_parameters():
        assert torch.equal(parameter, before[name]) and parameter.grad is None


def test_network_without_batchnorm_is_left_alone():
    """It is not even run: there is nothing to calibrate."""
    subject = nn.Sequential(nn.Flatten(), nn.Linear(5, 2))
    assert not calibrate_batchnorm(subject, images(4))
    assert subject.training
