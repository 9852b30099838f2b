from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag2mask.errors import InputError
from tag2mask.models.attention import Attention, region_self_attention
from tag2mask.models.backbones import Backbone
from tag2mask.models.cam import CAMNet, above_floor, fuse_scales, merged, multi_scale_cam, scale_to_one, two_steps
from tag2mask.models.tiling import tile, untile
from tests.arrays import reference

CLASSES, STRIDE = 3, 16


def network(**settings: Any) -> CAMNet:
    """A small CAM network with random weights."""
    torch.manual_seed(0)
    return CAMNet(CLASSES, Backbone("resnet10t", STRIDE, weights="none", **settings))


@pytest.fixture(scope="module")
def net() -> CAMNet:
    """One in evaluation mode, shared by the tests that do not train."""
    return network().eval().requires_grad_(False)


def images(height: int, width: int, count: int = 2) -> Tensor:
    """Random images."""
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(height + width))


@pytest.mark.parametrize("size", [(64, 64), (17, 33), (1, 1), (65, 127), (16, 250), (1, 40)])
def test_an_image_of_any_size_gives_a_map_of_its_size_over_the_stride(net: CAMNet, size: tuple[int, int]) -> None:
    cam, features = net(images(*size))
    expected = tuple(-(-side // STRIDE) for side in size)
    assert cam.shape == (2, CLASSES, *expected)
    assert features.shape[-2:] == expected


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_the_map_has_the_stride_of_the_settings(stride: int) -> None:
    net = CAMNet(CLASSES, Backbone("resnet10t", stride, weights="none")).eval()
    assert net.stride == stride
    assert net(images(65, 40))[0].shape[-2:] == (-(-65 // stride), -(-40 // stride))


def test_the_cam_is_the_classifier_on_the_features(net: CAMNet) -> None:
    cam, features = net(images(32, 48))
    expected = torch.einsum("bdhw,cd->bchw", features, net.classifier.weight[:, :, 0, 0])
    torch.testing.assert_close(cam, expected, rtol=1e-4, atol=1e-5)


def test_the_classifier_has_no_bias(net: CAMNet) -> None:
    assert net.classifier.bias is None


def test_a_network_with_a_head_after_its_pooling_works() -> None:
    net = CAMNet(CLASSES, Backbone("ghostnet_050", 32, weights="none")).eval()
    assert net(images(32, 32))[0].shape == (2, CLASSES, 1, 1)


def test_frozen_norms_stay_frozen_after_train_and_eval() -> None:
    net = network(freeze_norm=True)
    for mode in (True, False, True):
        nn.Sequential(net).train(mode)
        assert net.training == mode
        norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        assert norms
        assert not any(norm.training or norm.weight.requires_grad for norm in norms)


def test_frozen_parts_stay_frozen_after_train_and_eval() -> None:
    net = network(frozen=("conv1", "layer1"))
    for mode in (False, True):
        net.train(mode)
        frozen = [p for n, p in net.backbone.named_parameters() if n.startswith(("conv1", "layer1"))]
        assert frozen
        assert not any(parameter.requires_grad for parameter in frozen)
        assert not net.backbone.layer1.training
        assert net.backbone.layer2.training == mode


@pytest.mark.parametrize("size", [(64, 64), (33, 65), (17, 95), (64, 1)])
@pytest.mark.parametrize("grid", [1, 2])
def test_both_branches_give_maps_of_one_size(net: CAMNet, grid: int, size: tuple[int, int]) -> None:
    steps = two_steps(net, images(*size), grid, Attention())
    assert steps.full.shape == steps.tiled.shape == (2, CLASSES, *(-(-side // STRIDE) for side in size))


@pytest.mark.parametrize("size", [(64, 64), (33, 65), (64, 1)])
def test_small_tiles_are_enlarged_and_their_map_is_averaged_to_the_size_of_the_images(
    net: CAMNet, size: tuple[int, int]
) -> None:
    batch = images(*size)
    padded = F.pad(batch, (0, -size[1] % 32, 0, -size[0] % 32))
    tiles = tile(F.interpolate(padded, scale_factor=2, mode="bicubic"), 2)
    h, w = (-(-side // STRIDE) for side in size)
    steps = two_steps(net, batch, 2, None, min_side=64)
    assert torch.equal(steps.tile_features, net(tiles)[1])
    assert torch.equal(steps.tiled, F.avg_pool2d(untile(net(tiles)[0], 2), 2)[..., :h, :w])
    assert steps.full.shape == steps.tiled.shape


@pytest.mark.parametrize("grid", [2, 4])
def test_without_attention_the_tiled_branch_is_puzzle_cams(net: CAMNet, grid: int) -> None:
    batch = images(64, 128)
    steps = two_steps(net, batch, grid, None)
    assert torch.equal(steps.tiled, untile(net(tile(batch, grid))[0], grid))
    assert torch.equal(steps.full, net(batch)[0])
    assert steps.entropy is None


def test_the_tiles_of_an_odd_size_are_those_of_the_image_padded_to_whole_positions(net: CAMNet) -> None:
    batch = images(33, 65)
    padded = F.pad(batch, (0, 96 - 65, 0, 64 - 33))
    expected = untile(net(tile(padded, 2))[0], 2)[..., :3, :5]
    assert torch.equal(two_steps(net, batch, 2, None).tiled, expected)


def test_a_single_tile_without_attention_is_the_full_branch(net: CAMNet) -> None:
    steps = two_steps(net, images(48, 32), 1, None)
    assert torch.equal(steps.tiled, steps.full)


def test_with_attention_each_tile_is_refined_with_its_settings(net: CAMNet) -> None:
    batch, attention = images(64, 96), Attention(kernel="exp_cosine", temperature=0.05, center=True)
    cam, features = net(tile(batch, 2))
    refined, entropy = region_self_attention(features, cam, "exp_cosine", 0.05, center=True)
    steps = two_steps(net, batch, 2, attention)
    assert torch.equal(steps.tile_cam, refined)
    assert torch.equal(steps.tiled, untile(refined, 2))
    assert torch.equal(steps.tile_features, features)
    assert steps.entropy == entropy


@pytest.mark.parametrize("region", ["tile", "image"])
def test_the_target_is_the_refined_map_of_the_tiles_cut_at_zero_first(region: str) -> None:
    attention = Attention(region=region)  # type: ignore[arg-type]
    full, cam, features = torch.randn(2, CLASSES, 4, 6), torch.randn(8, CLASSES, 2, 3), torch.randn(8, 5, 2, 3)
    positive, maps = cam.relu(), ((full, torch.randn(2, 5, 4, 6)), (cam, features, features))
    if region == "image":
        expected, _ = attention.refine(untile(features, 2), untile(positive, 2))
    else:
        expected = untile(attention.refine(features, positive)[0], 2)
    steps = merged(*maps, 2, attention, refined="target")
    torch.testing.assert_close(steps.target, expected)
    assert steps.tile_cam is cam
    assert torch.equal(steps.tiled, untile(cam, 2))
    assert torch.equal(merged(*maps, 2, None, refined="target").target, untile(positive, 2))
    printed = merged(*maps, 2, attention)
    assert torch.equal(printed.target, printed.tiled)


def test_tiles_do_not_see_each_other(net: CAMNet) -> None:
    batch = images(64, 64)
    changed = batch.clone()
    changed[..., :32, :32] = 0
    before, after = (two_steps(net, x, 2, Attention()).tiled for x in (batch, changed))
    assert not torch.equal(before[..., :2, :2], after[..., :2, :2])
    torch.testing.assert_close(before[..., 2:, :], after[..., 2:, :])
    torch.testing.assert_close(before[..., :2, 2:], after[..., :2, 2:])


@pytest.mark.parametrize("attention", [None, Attention()], ids=["puzzle", "attention"])
def test_every_parameter_gets_a_gradient_from_both_branches(attention: Attention | None) -> None:
    net = network()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # timm starts the last norm of each block at zero, which holds gradients up
    steps = two_steps(net, images(64, 64), 2, attention)
    (steps.full.square().mean() + steps.tiled.square().mean()).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def reference_maps() -> tuple[dict[str, Tensor], list[Tensor]]:
    """Puzzle-CAM's arrays, and the class maps at its four scales."""
    arrays = reference("puzzle_multiscale_fusion")
    return arrays, [arrays[f"feats{i}"] for i in range(4)]


def test_fused_scales_are_puzzle_cams_cam_at_stride_4() -> None:
    arrays, maps = reference_maps()
    height, width = (-(-side // 4) for side in arrays["size"].tolist())
    found = scale_to_one(fuse_scales(maps, (height, width))[arrays["label"] > 0])
    torch.testing.assert_close(found, arrays["strided_cam"], rtol=1e-5, atol=1e-5)


def test_fused_scales_are_puzzle_cams_cam_at_full_size() -> None:
    arrays, maps = reference_maps()
    height, width = arrays["size"].tolist()
    padded = fuse_scales(maps, (-(-height // 16) * 16, -(-width // 16) * 16))[arrays["label"] > 0]
    torch.testing.assert_close(scale_to_one(padded[..., :height, :width]), arrays["hr_cam"], rtol=1e-5, atol=1e-5)


def test_the_tagged_classes_are_puzzle_cams_keys() -> None:
    arrays, _ = reference_maps()
    assert [0, *((arrays["label"] > 0).nonzero()[:, 0] + 1).tolist()] == arrays["keys_padded"].tolist()


def test_fuse_scales_cuts_at_zero_before_it_sums() -> None:
    maps = [torch.tensor([[[[-5.0]]]]), torch.tensor([[[[2.0]]]])]
    assert fuse_scales(maps, (1, 1)).item() == 2


def test_fuse_scales_turns_the_mirror_image_back() -> None:
    cam = torch.rand(1, 2, 3, 5)
    pair = torch.cat([cam, cam.flip(-1)])
    torch.testing.assert_close(fuse_scales([pair], (3, 5)), 2 * cam[0])


def test_scale_to_one_lies_between_zero_and_one_and_keeps_the_order() -> None:
    cam = torch.rand(4, 6, 7) * torch.tensor([1e-3, 1.0, 50.0, 0.0])[:, None, None]
    found = scale_to_one(cam)
    assert found.min() >= 0
    assert found.max() < 1
    assert found[1:3].amax((1, 2)).tolist() == pytest.approx([1, 1], abs=1e-4)
    assert found[3].abs().sum() == 0
    assert torch.equal(found[1].flatten().argsort(), cam[1].flatten().argsort())


@pytest.mark.parametrize("floor", [0.0, 0.4, 0.9])
def test_a_floor_moves_the_thresholds_above_it_and_no_label(floor: float) -> None:
    cam = scale_to_one(torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0)))
    found = above_floor(cam, floor)
    for threshold in (floor, floor + 0.3 * (1 - floor), floor + 0.8 * (1 - floor)):
        assert torch.equal(found > (threshold - floor) / (1 - floor), cam > threshold)
    assert (found[cam <= floor] == 0).all()
    assert found.amax((1, 2)).tolist() == pytest.approx([1, 1, 1], abs=1e-3)
    assert floor or torch.equal(found, cam)


@pytest.mark.parametrize("size", [(64, 64), (45, 77)])
def test_the_cam_of_the_mirrored_image_is_the_mirrored_cam(net: CAMNet, size: tuple[int, int]) -> None:
    image, (height, width) = images(*size, count=1)[0], (size[0] // 4, size[1] // 4)
    cam, scores, _ = multi_scale_cam(net, image, (0.5, 1.0, 1.5), True, (height, width))
    mirrored, mirrored_scores, _ = multi_scale_cam(net, image.flip(-1), (0.5, 1.0, 1.5), True, (height, width))
    torch.testing.assert_close(mirrored, cam.flip(-1), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(mirrored_scores, scores, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (5, 200), (33, 47)])
def test_a_cam_over_scales_has_the_size_that_was_asked_for(net: CAMNet, size: tuple[int, int], flip: bool) -> None:
    cam, scores, entropy = multi_scale_cam(net, images(*size, count=1)[0], (0.5, 2.0), flip, (9, 13))
    assert cam.shape == (CLASSES, 9, 13)
    assert cam.min() >= 0
    assert scores.shape == (CLASSES,)
    assert torch.isfinite(cam).all()
    assert entropy is None


def test_a_single_scale_without_flip_is_the_plain_cam(net: CAMNet) -> None:
    image = images(64, 96, count=1)
    expected, _ = net(image)
    cam, scores, _ = multi_scale_cam(net, image[0], (1.0,), False, (16, 24))
    upscaled = F.interpolate(expected.relu(), (16, 24), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(cam, upscaled, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(scores, expected.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)


def test_scores_are_the_mean_over_scales_and_flips(net: CAMNet) -> None:
    image = images(64, 64, count=1)[0]
    both = multi_scale_cam(net, image, (0.5, 1.0), True, (16, 16)).scores
    each = [
        multi_scale_cam(net, x, (scale,), False, (16, 16)).scores
        for scale in (0.5, 1.0)
        for x in (image, image.flip(-1))
    ]
    torch.testing.assert_close(both, torch.stack(each).mean(0), rtol=1e-3, atol=1e-6)


def test_an_attention_spreads_the_cam_of_each_scale_and_leaves_the_scores() -> None:
    net = network().eval()
    image, attention = images(64, 96, count=1), Attention("exp_cosine", 0.2, layer="layer2")
    with torch.no_grad():
        features = net(image)[1]
        net.classifier.weight.copy_(
            (features - features.mean((2, 3), keepdim=True))[0, :, 0, :CLASSES].T[..., None, None]
        )
    plain, scores, _ = multi_scale_cam(net, image[0], (1.0,), False, (4, 6))
    cam, scores_too, entropy = multi_scale_cam(net, image[0], (1.0,), False, (4, 6), attention)
    low = F.adaptive_avg_pool2d(net.backbone.layer2(net.backbone.layer1(_stem(net, image))), (4, 6))
    expected, expected_entropy = region_self_attention(low, plain[None], temperature=0.2, center=True)
    torch.testing.assert_close(cam, expected[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(entropy, expected_entropy)
    assert not torch.allclose(cam, plain)
    assert torch.equal(scores, scores_too)


@pytest.mark.parametrize("weights", ["none", None])
def test_no_weights_leave_the_network_at_random(weights: str | None) -> None:
    net = CAMNet(CLASSES, Backbone("resnet10t", STRIDE, weights=weights))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    net.load_pretrained()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_load_pretrained_fills_the_backbone_and_not_the_classifier(tmp_path: Path) -> None:
    source = network()
    torch.save(source.backbone.state_dict(), tmp_path / "a.pth")
    net = CAMNet(CLASSES, Backbone("resnet10t", STRIDE, weights=str(tmp_path / "a.pth")))
    classifier = net.classifier.weight.clone()
    net.load_pretrained()
    ours = net.backbone.state_dict()
    assert all(torch.equal(value, ours[key]) for key, value in source.backbone.state_dict().items())
    assert torch.equal(net.classifier.weight, classifier)


def test_an_attention_over_the_image_sees_all_tiles(net: CAMNet) -> None:
    batch, attention = images(64, 96), Attention("exp_cosine", 0.5, region="image")
    cam, features = net(tile(batch, 2))
    refined, _ = region_self_attention(untile(features, 2), untile(cam, 2), "exp_cosine", 0.5, center=True)
    steps = two_steps(net, batch, 2, attention)
    torch.testing.assert_close(steps.tiled, refined)
    torch.testing.assert_close(untile(steps.tile_cam, 2), refined)


def test_an_attention_may_be_made_of_a_lower_layer(net: CAMNet) -> None:
    batch, attention = images(64, 64), Attention("exp_cosine", layer="layer2", center=False)
    tiles = tile(batch, 2)
    low = F.adaptive_avg_pool2d(net.backbone.layer2(net.backbone.layer1(_stem(net, tiles))), 2)
    expected, _ = region_self_attention(low, net(tiles)[0])
    torch.testing.assert_close(two_steps(net, batch, 2, attention).tile_cam, expected)
    assert not net.backbone.layer2._forward_hooks


def _stem(net: CAMNet, x: Tensor) -> Tensor:
    backbone = net.backbone
    return backbone.maxpool(backbone.act1(backbone.bn1(backbone.conv1(x))))  # type: ignore[no-any-return]


def test_an_unknown_layer_is_named(net: CAMNet) -> None:
    with pytest.raises(InputError, match="no part 'layer9'"):
        two_steps(net, images(32, 32), 2, Attention(layer="layer9"))
