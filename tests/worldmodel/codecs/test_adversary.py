import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel.codecs.adversary import PatchDiscriminator, adversarial_losses


def pictures() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth, rebuilt = torch.rand(2, 3, 3, 16, 16, generator=generator) * 2 - 1
    return truth, rebuilt.requires_grad_()


def discriminator() -> PatchDiscriminator:
    torch.manual_seed(0)
    return PatchDiscriminator(8)


def gradients(net: nn.Module) -> list[Tensor]:
    return [torch.zeros(0) if weight.grad is None else weight.grad.clone() for weight in net.parameters()]


def test_the_codec_is_pulled_to_what_is_taken_for_true_as_strongly_as_by_its_own_loss():
    truth, rebuilt = pictures()
    net, reconstruction = discriminator(), F.mse_loss(rebuilt, truth)
    fooled, _ = adversarial_losses(net, truth, rebuilt, reconstruction)
    assert float(fooled.detach()) == pytest.approx(0.0, abs=1e-5)
    (pull,) = torch.autograd.grad(fooled, rebuilt, retain_graph=True)
    (own,) = torch.autograd.grad(reconstruction, rebuilt, retain_graph=True)
    (alone,) = torch.autograd.grad(-net(rebuilt).mean(), rebuilt)
    torch.testing.assert_close(pull.norm(), own.norm(), rtol=1e-3, atol=0.0)
    torch.testing.assert_close(pull / pull.norm(), alone / alone.norm())


def test_one_backward_pass_gives_the_discriminator_the_gradient_of_its_hinge_loss_alone():
    truth, rebuilt = pictures()
    net = discriminator()
    fooled, hinge = adversarial_losses(net, truth, rebuilt, F.mse_loss(rebuilt, truth))
    (fooled + hinge).backward()
    together = gradients(net)
    net.zero_grad()
    alone = 0.5 * ((1 - net(truth)).clamp(min=0).mean() + (1 + net(rebuilt.detach())).clamp(min=0).mean())
    alone.backward()
    for one, other in zip(together, gradients(net), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert any(one.abs().max() > 1e-3 for one in together)


def test_the_hinge_loss_gives_the_picture_no_gradient():
    truth, rebuilt = pictures()
    _, hinge = adversarial_losses(discriminator(), truth, rebuilt, F.mse_loss(rebuilt, truth))
    assert torch.autograd.grad(hinge, rebuilt, allow_unused=True) == (None,)


def test_a_discriminator_learns_to_tell_blurred_pictures():
    net, generator = discriminator(), torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)

    def draw() -> tuple[Tensor, Tensor]:
        truth = torch.rand(8, 3, 16, 16, generator=generator) * 2 - 1
        return truth, F.avg_pool2d(truth, 3, 1, 1).requires_grad_()

    for _ in range(40):
        truth, blurred = draw()
        _, hinge = adversarial_losses(net, truth, blurred, F.mse_loss(blurred, truth))
        optimizer.zero_grad()
        hinge.backward()
        optimizer.step()
    truth, blurred = draw()
    with torch.no_grad():
        right = torch.cat((net(truth) > 0, net(blurred) < 0)).float().mean()
    assert right > 0.9
