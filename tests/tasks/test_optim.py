import pytest
import torch
from torch import nn

from tag2mask.tasks.optim import SGD, parameter_groups, polynomial
from tests.arrays import reference


def network() -> tuple[nn.Sequential, nn.Conv2d]:
    """A backbone of a convolution and a norm, and a new classifier with a bias."""
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), nn.Conv2d(4, 2, 1)


class Pair(nn.Module):
    """The two parameters of the reference: one with weight decay, and a bias."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())


def test_sgd_and_its_schedule_step_like_puzzle_cams() -> None:
    arrays = reference("puzzle_poly_optimizer")
    pair = Pair(*arrays["weights"][0])
    momentum, decay, rate = (arrays[key].flatten()[0].item() for key in ("real_momentum", "wd", "lrs"))
    steps = len(arrays["grads"])
    optimizer, schedule = SGD(lr=rate, momentum=momentum, weight_decay=decay).build(pair, pair, lambda: steps)
    for step, (weight, bias) in enumerate(arrays["grads"]):
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx(arrays["lrs"][step].tolist())
        pair.weight.grad, pair.bias.grad = weight.clone(), bias.clone()
        optimizer.step()
        schedule.step()
        now = torch.stack([pair.weight.detach(), pair.bias.detach()])
        torch.testing.assert_close(now, arrays["weights"][step + 1], rtol=1e-5, atol=1e-6)


def test_new_layers_and_biases_learn_faster_and_biases_do_not_decay() -> None:
    backbone, classifier = network()
    groups = parameter_groups(backbone, nn.ModuleList([backbone, classifier]), SGD(lr=0.1, weight_decay=1e-4))
    found = [(group["lr"], group["weight_decay"], len(group["params"])) for group in groups]
    assert found == [
        (pytest.approx(0.1), 1e-4, 2),
        (pytest.approx(0.2), 0, 2),
        (pytest.approx(1.0), 1e-4, 1),
        (pytest.approx(2.0), 0, 1),
    ]


def test_every_parameter_is_in_one_group() -> None:
    backbone, classifier = network()
    groups = parameter_groups(backbone, nn.ModuleList([backbone, classifier]), SGD())
    found = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(found) == sorted(id(p) for module in (backbone, classifier) for p in module.parameters())


def test_frozen_parameters_are_left_out() -> None:
    backbone, classifier = network()
    backbone[0].requires_grad_(False)
    groups = parameter_groups(backbone, nn.ModuleList([backbone, classifier]), SGD())
    found = {id(parameter) for group in groups for parameter in group["params"]}
    assert found == {id(p) for module in (backbone[1], classifier) for p in module.parameters()}


def test_a_frozen_backbone_leaves_no_empty_group() -> None:
    backbone, classifier = network()
    backbone.requires_grad_(False)
    assert [
        len(group["params"]) for group in parameter_groups(backbone, nn.ModuleList([backbone, classifier]), SGD())
    ] == [1, 1]


def test_momentum_lands_in_the_momentum() -> None:
    backbone, classifier = network()
    optimizer, _ = SGD(momentum=0.9, weight_decay=1e-4).build(
        backbone, nn.ModuleList([backbone, classifier]), lambda: 10
    )
    assert {group["momentum"] for group in optimizer.param_groups} == {0.9}
    assert all(group["nesterov"] for group in optimizer.param_groups)


def test_momentum_carries_a_step_on() -> None:
    pair = Pair(torch.zeros(1), torch.zeros(1))
    optimizer, _ = SGD(lr=1.0, momentum=0.9, nesterov=False, weight_decay=0).build(pair, pair, lambda: 10)
    pair.weight.grad = torch.ones(1)
    optimizer.step()
    pair.weight.grad = torch.zeros(1)
    optimizer.step()
    assert pair.weight.item() == pytest.approx(-1.9)


def test_without_momentum_nesterov_is_left_out() -> None:
    backbone, classifier = network()
    optimizer, _ = SGD(momentum=0.0, nesterov=True).build(backbone, nn.ModuleList([backbone, classifier]), lambda: 10)
    assert not any(group["nesterov"] for group in optimizer.param_groups)


def test_the_rate_falls_from_one_to_zero() -> None:
    rates = [polynomial(step, 10, 0.9) for step in range(11)]
    assert rates[0] == 1
    assert rates[5] == pytest.approx(0.5**0.9)
    assert rates[10] == 0
    assert rates == sorted(rates, reverse=True)


def test_the_rate_stays_zero_beyond_the_last_step() -> None:
    assert polynomial(12, 10, 0.9) == 0


def test_power_zero_is_a_constant_rate() -> None:
    assert {polynomial(step, 10, 0.0) for step in range(10)} == {1.0}


def test_warm_up_grows_from_near_zero_then_follows_the_decay() -> None:
    rates = [polynomial(step, 100, 0.9, warmup=4) for step in range(6)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4:] == pytest.approx([polynomial(step, 100, 0.9) for step in (4, 5)])


def test_warm_up_reaches_every_group() -> None:
    backbone, classifier = network()
    optimizer, schedule = SGD(lr=0.1, warmup=1).build(backbone, nn.ModuleList([backbone, classifier]), lambda: 100)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.1, 0.5, 1.0])
    optimizer.step()
    schedule.step()
    full = 0.99**0.9
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1 * full, 0.2 * full, full, 2 * full])


def test_the_learning_rate_grows_with_the_photographs_of_a_step() -> None:
    sgd = SGD(lr=0.1, for_batch=32)
    assert sgd.scaled_to(256).lr == pytest.approx(0.8)
    assert sgd.scaled_to(8).lr == pytest.approx(0.025)
    assert SGD(lr=0.1).scaled_to(256).lr == 0.1
