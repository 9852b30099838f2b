"""Plain vision transformers as backbones of the CAM network; all have random weights."""

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag2mask.errors import InputError
from tag2mask.models.attention import Attention
from tag2mask.models.backbones import Backbone, build, feature_width, load_weights
from tag2mask.models.cam import CAMNet, captured, multi_scale_cam, two_steps
from tag2mask.models.edges import EdgeNet
from tag2mask.models.tiling import tile, untile
from tag2mask.models.vit import own_attention, patch_tokens

CLASSES = 3
TINY = "test_vit"  # six blocks of width 64, patches of 16, a class token
NETS = {  # name -> side of a patch, prefix tokens
    TINY: (16, 1),
    "test_vit2": (16, 1),  # no class token, a register; its last norm is behind the pooling
    "test_vit3": (16, 1),  # attention pooling
    "deit_tiny_patch16_224": (16, 1),
    "deit_tiny_distilled_patch16_224": (16, 2),
    "eva02_tiny_patch14_224": (14, 1),
    "vit_small_patch14_reg4_dinov2.lvd142m": (14, 5),
    "vit_small_patch16_dinov3.lvd1689m": (16, 5),
    "vit_base_patch32_clip_224.openai": (32, 1),
}


def network(name: str = TINY, **settings: Any) -> CAMNet:
    """A CAM network with random weights, in evaluation."""
    torch.manual_seed(0)
    return CAMNet(CLASSES, Backbone(name, NETS[name][0], weights="none", **settings)).eval()


def images(height: int, width: int, count: int = 2) -> Tensor:
    """Random images."""
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(height + width))


@pytest.fixture(scope="module")
def net() -> CAMNet:
    """One that no test trains."""
    return network().requires_grad_(False)


@pytest.mark.parametrize("name", NETS)
def test_the_map_is_timms_tokens_in_rows_without_prefix_tokens(name: str) -> None:
    side, prefix = NETS[name]
    net = network(name).requires_grad_(False)
    batch = images(2 * side, 3 * side)
    cam, features = net(batch)
    tokens = net.backbone.fc_norm(net.backbone.forward_features(batch))  # the norm is the identity for most
    assert tokens.shape[1] == prefix + 6
    assert features.shape == (2, net.classifier.in_channels, 2, 3)
    for row in range(2):
        for column in range(3):
            torch.testing.assert_close(features[:, :, row, column], tokens[:, prefix + 3 * row + column])
    laid_out, before = patch_tokens(net.backbone, batch)
    torch.testing.assert_close(laid_out, features)
    torch.testing.assert_close(before, tokens[:, :prefix])
    torch.testing.assert_close(cam, torch.einsum("bdhw,cd->bchw", features, net.classifier.weight[:, :, 0, 0]))


@pytest.mark.parametrize("name", NETS)
def test_a_bright_patch_moves_its_own_position_most(name: str) -> None:
    side, _ = NETS[name]
    net = network(name).requires_grad_(False)
    for row, column in ((0, 3), (2, 1)):
        dark = torch.zeros(1, 3, 3 * side, 5 * side)
        bright = dark.clone()
        bright[:, :, row * side : (row + 1) * side, column * side : (column + 1) * side] = 3
        moved = (net(bright)[1] - net(dark)[1]).norm(dim=1)[0]
        assert divmod(int(moved.argmax()), 5) == (row, column)


@pytest.mark.parametrize("name", ["test_vit", "deit_tiny_patch16_224"])
def test_at_its_own_size_the_class_token_is_timms(name: str) -> None:
    model = build(Backbone(name, weights="none")).eval()
    plain = timm.create_model(name, num_classes=0).eval()  # takes images of one size
    plain.load_state_dict(model.state_dict())
    batch = images(*plain.patch_embed.img_size, count=1)
    with torch.no_grad():
        torch.testing.assert_close(patch_tokens(model, batch)[1][:, 0], plain(batch))


def test_positions_are_interpolated_to_the_size_of_the_image() -> None:
    """With a blank image and no blocks, what is left of the tokens are their positions."""
    model = build(Backbone(TINY, weights="none")).eval()
    model.blocks, model.norm = nn.Identity(), nn.Identity()
    nn.init.zeros_(model.patch_embed.proj.bias)  # type: ignore[union-attr, arg-type]
    height, width = model.patch_embed.grid_size  # type: ignore[union-attr, misc]
    with torch.no_grad():
        model.pos_embed.copy_(torch.cat([torch.zeros(1), torch.arange(height * width) // width])[None, :, None])  # type: ignore[operator]
        found = patch_tokens(model, torch.zeros(1, 3, 32, 64))[0][0, 0]
    assert found.shape == (2, 4)
    torch.testing.assert_close(found, found[:, :1].expand(2, 4))  # a position counts its row, whatever the column
    assert found[0, 0] < height / 2 < found[1, 0]


@pytest.mark.parametrize(("name", "size"), [(TINY, (33, 70)), ("eva02_tiny_patch14_224", (29, 1))])
def test_an_image_of_any_size_gives_a_map_of_its_size_over_the_patch(name: str, size: tuple[int, int]) -> None:
    net, (side, _) = network(name).requires_grad_(False), NETS[name]
    assert net.stride == side
    assert net(images(*size))[0].shape == (2, CLASSES, *(-(-length // side) for length in size))


@pytest.mark.parametrize(("name", "stride", "patch"), [(TINY, 8, 16), ("eva02_tiny_patch14_224", 16, 14)])
def test_another_stride_than_the_patch_is_refused(name: str, stride: int, patch: int) -> None:
    told = f"{name} cannot have output stride {stride}; a patch of {patch} x {patch} .* give output_stride: {patch}"
    with pytest.raises(InputError, match=told):
        build(Backbone(name, stride, weights="none"))


def test_edges_are_not_made_of_a_vision_transformer() -> None:
    with pytest.raises(InputError, match="test_vit cannot be the backbone of an edge network; a plain vision"):
        EdgeNet(Backbone(TINY, weights="none"))


@pytest.mark.parametrize("name", NETS)
def test_weights_of_a_file_are_those_that_were_saved(name: str, tmp_path: Path) -> None:
    """Saved with their head, as they come from timm."""
    source = timm.create_model(name, num_classes=5)
    for parameter in source.parameters():
        nn.init.normal_(parameter)
    torch.save(source.state_dict(), tmp_path / "a.pth")
    backbone = Backbone(name, NETS[name][0], weights=str(tmp_path / "a.pth"))
    model = build(backbone)
    load_weights(model, name, backbone.weights)
    saved = source.state_dict()
    assert all(torch.equal(value, saved[key]) for key, value in model.state_dict().items())
    assert feature_width(model, backbone) == source.embed_dim


LAST_ONLY = ("cls_token", "pos_embed", "patch_embed", *(f"blocks.{number}" for number in range(5)))


@pytest.mark.parametrize("attention", [None, Attention(layer="blocks.2"), Attention("network")], ids=str)
def test_frozen_but_for_the_last_block_a_gradient_reaches_that_and_no_other(attention: Attention | None) -> None:
    net = network(frozen=LAST_ONLY).train()
    steps = two_steps(net, images(64, 64), 2, attention)
    (steps.full.square().mean() + steps.tiled.square().mean()).backward()
    reached = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    expected = {
        name for name, _ in net.named_parameters() if not name.startswith(tuple(f"backbone.{n}" for n in LAST_ONLY))
    }
    assert reached == expected
    assert {name.split(".")[1] for name in reached} == {"blocks", "norm", "weight"}
    assert not net.backbone.blocks[4].training
    assert net.backbone.blocks[5].training


@pytest.mark.parametrize("name", [TINY, "test_vit2", "test_vit3", "eva02_tiny_patch14_224"])
def test_every_parameter_gets_a_gradient_without_frozen_ones(name: str) -> None:
    """DDP waits for those that get none."""
    net = network(name).train()
    net(images(2 * net.stride, 2 * net.stride))[0].square().mean().backward()
    assert [key for key, p in net.named_parameters() if p.grad is None] == []


# attention


@pytest.mark.parametrize("size", [(64, 96), (40, 70)])
def test_a_block_guides_an_attention_as_the_map_of_its_tokens(net: CAMNet, size: tuple[int, int]) -> None:
    cam, features, guide = net.guided(images(*size), Attention(layer="blocks.2"))
    rows, columns = cam.shape[-2:]
    tokens: list[Tensor] = []
    with net.backbone.blocks[2].register_forward_hook(lambda module, inputs, output: tokens.append(output)):
        expected, _ = net(images(*size))
    torch.testing.assert_close(cam, expected)
    assert guide.shape == features.shape
    torch.testing.assert_close(guide.flatten(2).mT, tokens[0][:, 1:])
    torch.testing.assert_close(guide[:, :, rows - 1, 1], tokens[0][:, 1 + (rows - 1) * columns + 1])


@pytest.mark.parametrize("layer", ["patch_embed", "blocks.1.attn.q_norm", "blocks.1.attn.attn_drop"])
def test_a_part_without_a_map_is_refused(net: CAMNet, layer: str) -> None:
    with pytest.raises(InputError, match=f"the part '{layer}' of the backbone puts out no map"):
        net.require_guide(Attention(layer=layer))


def test_a_convolution_of_the_patches_is_a_map(net: CAMNet) -> None:
    with captured(net.backbone, "patch_embed.proj", (32, 48)) as maps:
        net(images(32, 48))
    assert maps[0].shape == (2, 64, 2, 3)


def by_hand(net: CAMNet, batch: Tensor, block: int) -> Tensor:
    """Softmax of queries and keys of a block, one image, head and patch after the other, (B, P, P)."""
    model, inputs = net.backbone, []
    with model.blocks[block].attn.register_forward_hook(lambda module, given, output: inputs.append(given[0])):
        net(batch)
    layer, (count, length, width) = model.blocks[block].attn, inputs[0].shape
    found = torch.zeros(count, length - 1, length - 1)
    depth = width // layer.num_heads
    for image in range(count):
        query, key, _ = layer.qkv(inputs[0][image]).split(width, dim=1)
        for head in range(layer.num_heads):
            q, k = (x[:, head * depth : (head + 1) * depth] for x in (query, key))
            for p in range(1, length):
                weights = torch.tensor([math.exp(float(q[p] @ k[other]) / depth**0.5) for other in range(length)])
                found[image, p - 1] += weights[1:] / weights.sum() / layer.num_heads
    return found


def test_own_attention_is_the_softmax_by_hand(net: CAMNet) -> None:
    batch = images(32, 48)
    for block in (1, 4):
        with own_attention(net.backbone, [f"blocks.{block}"]) as rows:
            net(batch)
        torch.testing.assert_close(rows[0], by_hand(net, batch, block), rtol=1e-4, atol=1e-6)
        assert (rows[0].sum(2) < 1).all()  # the rest is the class token's


def test_own_attention_is_the_mean_over_the_blocks_all_if_none_is_named(net: CAMNet) -> None:
    batch, each = images(32, 48), []
    for block in range(6):
        with own_attention(net.backbone, [f"blocks.{block}"]) as rows:
            net(batch)
        each.append(rows[0])
    with own_attention(net.backbone) as rows:
        net(batch)
    torch.testing.assert_close(rows[0], torch.stack(each).mean(0))


def test_a_cam_follows_the_mean_of_the_blocks_own_attentions() -> None:
    net, batch = network().requires_grad_(False), images(32, 48)
    nn.init.normal_(net.classifier.weight)
    affinity = torch.stack([by_hand(net, batch, block) for block in (1, 4)]).mean(0)
    affinity = affinity / affinity.sum(2, keepdim=True)
    attention = Attention("network", layer=("blocks.1", "blocks.4"))
    cam, _, guide = net.guided(batch, attention)
    refined, _ = attention.refine(guide, cam)
    torch.testing.assert_close(refined.flatten(2), cam.flatten(2) @ affinity.mT, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(refined, cam)


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "vit_small_patch16_dinov3.lvd1689m", "test_vit2"])
def test_own_attention_of_other_kinds_is_what_mixes_their_values(name: str) -> None:
    """Rotary positions and registers: with one-hot values, the output of fused attention is its weights."""
    net, (side, prefix) = network(name).requires_grad_(False), NETS[name]
    layer, batch = net.backbone.blocks[0].attn, images(2 * side, 3 * side, count=1)
    asked: list[tuple[Tensor, Tensor]] = []
    fused = F.scaled_dot_product_attention

    def watch(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> Tensor:
        asked.append((q, k))
        return fused(q, k, v, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", watch)
        expected, _ = net(batch)
        q, k = asked[0]
    one_hot = torch.eye(prefix + 6).expand(1, q.shape[1], -1, -1)
    weights = fused(q, k, one_hot, scale=layer.scale).mean(1)[:, prefix:, prefix:]
    with own_attention(net.backbone, ["blocks.0"]) as rows:
        cam, _ = net(batch)
    torch.testing.assert_close(rows[0], weights, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(cam, expected, rtol=1e-3, atol=1e-5)


def test_fused_attention_is_on_again_afterwards_even_after_an_error(net: CAMNet) -> None:
    layers = [block.attn for block in net.backbone.blocks]
    for layer in layers:
        layer.fused_attn = True
    with own_attention(net.backbone, ["blocks.1", "blocks.2"]):
        assert [layer.fused_attn for layer in layers] == [True, False, False, True, True, True]
    with pytest.raises(RuntimeError, match="channels"), own_attention(net.backbone):
        net(torch.zeros(1, 2, 16, 16))
    assert all(layer.fused_attn for layer in layers)
    assert not any(layer.attn_drop._forward_hooks for layer in layers)


@pytest.mark.parametrize(
    ("name", "block"), [("resnet10t", None), ("tf_efficientnet_lite0", None), (TINY, "blocks.6"), (TINY, "patch_embed")]
)
def test_a_network_or_part_without_attention_of_its_own_is_refused(name: str, block: str | None) -> None:
    net = CAMNet(CLASSES, Backbone(name, weights="none"))
    with pytest.raises(InputError, match=f"no attention of its own in '{block or 'blocks.0'}'"):
        net.require_guide(Attention("network", layer=block))


def test_differential_attention_whose_layer_holds_other_weights_is_refused() -> None:
    with torch.device("meta"):
        model = build(Backbone("vit_dwee_patch16_reg1_gap_256", weights="none"))
    with pytest.raises(InputError, match="no attention of its own in 'blocks.0'"), own_attention(model):
        pass


@pytest.mark.parametrize("attention", [Attention(layer="blocks.2"), Attention("network")], ids=str)
def test_each_tile_is_refined_by_what_it_alone_shows(net: CAMNet, attention: Attention) -> None:
    batch = images(60, 100)
    steps = two_steps(net, batch, 2, attention)
    assert steps.full.shape == steps.tiled.shape == (2, CLASSES, 4, 7)
    padded = F.pad(batch, (0, 28, 0, 4))
    cam, _, guide = net.guided(tile(padded, 2), attention)
    torch.testing.assert_close(steps.tiled, untile(attention.refine(guide, cam)[0], 2)[..., :4, :7])
    assert not torch.allclose(steps.tile_cam, cam)


@pytest.mark.parametrize("attention", [None, Attention("network"), Attention(layer="blocks.2")], ids=str)
def test_cams_over_scales_of_an_image_that_is_no_square(net: CAMNet, attention: Attention | None) -> None:
    image = images(50, 90, count=1)[0]
    cam, scores, entropy = multi_scale_cam(net, image, (0.5, 1.0, 2.0), True, (13, 23), attention)
    mirrored = multi_scale_cam(net, image.flip(-1), (0.5, 1.0, 2.0), True, (13, 23), attention)
    assert cam.shape == (CLASSES, 13, 23)
    torch.testing.assert_close(mirrored.maps, cam.flip(-1), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(mirrored.scores, scores, rtol=1e-3, atol=1e-6)
    assert (entropy is None) == (attention is None)
