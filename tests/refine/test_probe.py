"""The linear probe: what it learns, and from whom."""

import pytest
import torch
import torch.nn.functional as F

from tag2mask.errors import MissingError, SettingError
from tag2mask.refine.probe import Fitted, Probe, drawn, fit, shares_at_positions


def scenes(count: int = 12, positions: int = 200) -> tuple[list[str], list[torch.Tensor], list[torch.Tensor]]:
    """Photographs of two classes that one feature tells apart, and the true classes (P,) of their positions."""
    generator = torch.Generator().manual_seed(0)
    classes = [torch.randint(0, 2, (positions,), generator=generator) for _ in range(count)]
    features = [torch.randn(positions, 6, generator=generator) for _ in range(count)]
    for each, label in zip(features, classes, strict=True):
        each[:, 0] += 4 * label
    return [f"photo{number}" for number in range(count)], features, classes


def shares(labels: list[torch.Tensor], num_classes: int = 2) -> list[torch.Tensor]:
    return [F.one_hot(label, num_classes).float() for label in labels]


def learned(
    names: list[str], features: list[torch.Tensor], targets: list[torch.Tensor]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {name: (each, target) for name, each, target in zip(names, features, targets, strict=True)}


def winners(fitted: Fitted, features: torch.Tensor, name: str) -> torch.Tensor:
    return fitted.logits(features.T[:, None], name).argmax(0)[0]


def test_its_maps_are_better_than_labels_with_errors() -> None:
    names, features, truth = scenes()
    generator = torch.Generator().manual_seed(1)
    labels = [label ^ (torch.rand(len(label), generator=generator) < 0.3).long() for label in truth]
    fitted = fit(learned(names, features, shares(labels)), Probe(weight_decay=0.12))
    right = [winners(fitted, *pair) == label for *pair, label in zip(features, names, truth, strict=True)]
    assert torch.cat(right).float().mean() > 0.95
    assert (torch.cat(labels) == torch.cat(truth)).float().mean() < 0.75


def test_a_photograph_is_judged_by_all_and_by_the_others() -> None:
    names, features, truth = scenes(count=6)
    fitted = fit(learned(names, features, shares(truth)), Probe(folds=3, weight_decay=6))
    assert sorted(fitted.fold.values()) == [0, 0, 1, 1, 2, 2]
    others = [number for number, name in enumerate(names) if fitted.fold[name] != fitted.fold["photo0"]]
    inputs = (torch.cat([features[number] for number in others]) - fitted.mean) / fitted.std
    targets = torch.cat([each / each.sum(0) for each in shares([truth[number] for number in others])])
    weight, bias = (part[1 + fitted.fold["photo0"]].clone().requires_grad_() for part in (fitted.weight, fitted.bias))
    loss = -(targets * F.linear(inputs, weight, bias).log_softmax(1)).sum() / targets.sum() + weight.square().sum()
    loss.backward()  # type: ignore[no-untyped-call]
    for part in (weight, bias):
        assert part.grad is not None
        assert part.grad.abs().max() < 1e-3  # the minimum of the loss over the others
    scaled = (features[0] - fitted.mean) / fitted.std
    each = [F.linear(scaled, fitted.weight[k], fitted.bias[k]) for k in (0, 1 + fitted.fold["photo0"])]
    torch.testing.assert_close(fitted.logits(features[0].T[:, None], "photo0")[:, 0].T, each[0] + each[1])
    torch.testing.assert_close(fitted.logits(features[0].T[:, None], "unknown")[:, 0].T, 2 * each[0])


def test_a_small_class_weighs_as_much_as_a_large_one() -> None:
    names, features, truth = scenes(count=4)
    rare = [label * (torch.arange(len(label)) < 20).long() for label in truth]
    for each, label, old in zip(features, rare, truth, strict=True):
        each[:, 0] += 4.0 * (label - old)
    fitted = fit(learned(names, features, shares(rare)), Probe())
    scaled = (torch.cat(features) - fitted.mean) / fitted.std
    probabilities = F.linear(scaled, fitted.weight[0], fitted.bias[0]).softmax(1)
    of_class = torch.cat(rare) == 1
    balanced = (probabilities[of_class].mean(0) + probabilities[~of_class].mean(0)) / 2
    assert abs(balanced[0] - 0.5) < 0.05  # by the bias, at whose minimum predictions add up to the targets


def test_a_class_that_no_label_shows_is_never_seen() -> None:
    names, features, truth = scenes(count=3)
    fitted = fit(learned(names, features, shares(truth, 3)), Probe())
    assert (fitted.logits(features[0].T[:, None], "photo0").softmax(0)[2] == 0).all()


def test_fewer_photographs_than_folds_are_a_fold_each() -> None:
    names, features, truth = scenes(count=2)
    assert sorted(fit(learned(names, features, shares(truth)), Probe()).fold.values()) == [0, 1]


def test_nothing_to_learn_is_said() -> None:
    names, features, truth = scenes(count=3)
    with pytest.raises(MissingError, match="needs two or more"):
        fit(learned(names[:1], features[:1], shares(truth[:1])), Probe())
    with pytest.raises(MissingError, match="learns nothing"):
        fit(learned(names, features, shares([0 * each for each in truth])), Probe())


def test_shares_are_those_of_the_pixels_of_a_position() -> None:
    label = torch.tensor([[0, 0, 1, 1], [0, 2, 255, 1]], dtype=torch.uint8)
    found = shares_at_positions(label, (1, 2), 3)
    torch.testing.assert_close(found, torch.tensor([[[0.75, 0.0]], [[0.0, 0.75]], [[0.25, 0.0]]]))


def test_positions_are_drawn_by_the_name() -> None:
    assert drawn("a", 100, 10) == drawn("a", 100, 10) != drawn("b", 100, 10)
    assert len(set(drawn("a", 100, 10))) == 10
    assert drawn("a", 5, 10) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "wrong", [{"folds": 1}, {"rounds": 0}, {"weight_decay": 0.0}, {"positions": 0}, {"layers": ()}]
)
def test_settings_that_no_probe_can_have_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingError, match="expected 2 folds or more"):
        Probe(**wrong)  # type: ignore[arg-type]
