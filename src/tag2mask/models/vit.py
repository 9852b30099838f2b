"""Plain vision transformers of timm as backbones: the grid of their patches is the map.

DeiT, DINOv2 and v3, CLIP, EVA and their kin: one width from the first block to the last, positions interpolated to
the size of the image.

Shape letters in this file: B images, H x W an image, h x w its grid of patches, P = h w patches, T prefix tokens (the
class token first, then a distillation token or registers), N = T + P tokens, D channels.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from tag2mask.errors import SettingError

MODULES = ("vision_transformer", "deit", "eva")  # of timm, whose networks all take an image of any size


def is_plain_vit(name: str) -> bool:
    """Say whether timm's model ``name`` is a plain vision transformer."""
    from timm.models import is_model_in_modules

    return is_model_in_modules(name, MODULES)


def build_vit(name: str, stride: int) -> nn.Module:
    """Return timm's model ``name`` for images of any size, without pooling and classifier, with random weights.

    ``SettingError`` where its patches have not ``stride`` x ``stride`` pixels.
    """
    from timm import create_model

    model: Any = create_model(name, num_classes=0, dynamic_img_size=True)
    sides = tuple(model.patch_embed.patch_size)
    if sides != (stride, stride):
        raise SettingError(
            f"{name} cannot have output stride {stride}; a patch of {sides[0]} x {sides[1]} pixels is a position of "
            f"its map: give output_stride: {sides[0]}"
        )
    model.attn_pool = None  # its weights would get no gradient
    built: nn.Module = model
    return built


def _is_vit(model: nn.Module) -> bool:
    """Say whether a backbone is a plain vision transformer."""
    from timm.models import Eva, VisionTransformer

    return isinstance(model, VisionTransformer | Eva)


def feature_map(model: nn.Module, images: Tensor) -> Tensor:
    """Return the features of any backbone under a classifier, (B, D, h, w), for images of whole positions."""
    if _is_vit(model):
        return patch_tokens(model, images)[0]
    features: Tensor = model.forward_features(images)  # type: ignore[operator]
    return features


def patch_tokens(model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the patch tokens of a plain ViT as a map, (B, D, h, w), and its prefix tokens, (B, T, D).

    They are timm's after the last norm, for images (B, 3, H, W) of whole patches. ``prefix[:, 0]`` is the class token
    where the network has one. The norm that some have behind their pooling, such as EVA-02, is taken of each token.
    """
    tokens: Tensor = model.fc_norm(model.forward_features(images))
    height, width = images.shape[-2:]
    return _grid(model, tokens, (height, width)), tokens[:, : model.num_prefix_tokens]


def _grid(model: Any, tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Lay tokens (B, N, D) of images of ``size`` out as a map, (B, D, h, w); prefix tokens are left out."""
    height, width = model.patch_embed.dynamic_feat_size(size)
    grid: Tensor = tokens[:, model.num_prefix_tokens :].transpose(1, 2).unflatten(2, (height, width))
    return grid


def as_map(model: Any, output: Any, size: tuple[int, int]) -> Tensor | None:
    """Return what a part of a backbone puts out as a map (B, G, h', w'), None where it is none.

    Tokens of a plain ViT, (B, N, G), are laid out as its grid; the images have the ``size`` (H, W), of whole patches.
    """
    if _is_vit(model) and isinstance(output, Tensor):
        if output.ndim == 3:
            return _grid(model, output, size)
        return output if output.shape[-2:] == model.patch_embed.dynamic_feat_size(size) else None
    return output if isinstance(output, Tensor) and output.ndim == 4 else None


@contextmanager
def own_attention(model: nn.Module, blocks: Sequence[str] = ()) -> Iterator[list[Tensor]]:
    """Take the attention of a plain ViT while the with-block runs: a list of one (B, P, P), made by a forward pass.

    Row p has the softmax weights with which patch p looks at all patches, the mean over heads and ``blocks``, all if
    empty. Prefix tokens are left out, so a row sums to less than 1. CLIP-ES (https://arxiv.org/abs/2212.09506) refines
    CAMs with the mean of its last eight blocks, made symmetric; WeakTr (https://arxiv.org/abs/2304.01184) with heads
    that it learns to weigh.

    Fused attention gives no weights: it is off in these blocks meanwhile. Held are P x P an image, and while a block
    runs twice heads x N x N: 16-fold the memory for an image of twice the sides.
    """
    names = blocks or [f"blocks.{number}" for number, _ in enumerate(getattr(model, "blocks", [None]))]
    rows: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, weights: Tensor) -> None:
        share = weights.mean(1)[:, model.num_prefix_tokens :, model.num_prefix_tokens :] / len(names)  # type: ignore[misc]
        rows[:] = [rows[0] + share] if rows else [share]

    with ExitStack() as stack:
        for attention in [_attention_of(model, name) for name in names]:
            stack.callback(setattr, attention, "fused_attn", attention.fused_attn)
            attention.fused_attn = False
            stack.enter_context(attention.attn_drop.register_forward_hook(keep))  # the weights pass through that layer
        yield rows


def _attention_of(model: nn.Module, block: str) -> Any:
    """Return the attention layer of a block; ``SettingError`` where there is none that gives its weights."""
    from timm.layers.attention import Attention, AttentionRope
    from timm.models.eva import EvaAttention

    found = dict(model.named_modules()).get(f"{block}.attn")
    if not isinstance(found, Attention | AttentionRope | EvaAttention):
        raise SettingError(
            f"the backbone has no attention of its own in {block!r}; name blocks of a plain vision transformer, such "
            "as blocks.5, or take another kernel"
        )
    return found
