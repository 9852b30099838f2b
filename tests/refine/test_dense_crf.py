import math
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tag2mask.classes import IGNORE
from tag2mask.errors import MismatchError, MissingError, SettingError
from tag2mask.refine import dense_crf as module
from tag2mask.refine import permutohedral
from tag2mask.refine.dense_crf import (
    Backend,
    Bilateral,
    Gaussian,
    dense_crf,
    mean_field,
    unary_from_labels,
    unary_from_probabilities,
)
from tests.arrays import reference

BACKENDS: list[Any] = [name for name in get_args(Backend) if name != "auto"]
NARROW = Bilateral(sxy=5, srgb=30, compat=4)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "pydensecrf":
        pytest.importorskip("pydensecrf")
    return request.param


def picture(height: int = 24, width: int = 30, seed: int = 0) -> np.ndarray:
    """Left half dark, right half bright, both noisy, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 30, (height, width, 3))
    image[:, width // 2 :] += 180
    return image.astype(np.uint8)


def scores(labels: int = 3, height: int = 24, width: int = 30, seed: int = 0) -> Tensor:
    """Probabilities (L, H, W)."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(labels, height, width, generator=rng).softmax(0)


def unary(labels: int = 3, height: int = 24, width: int = 30, seed: int = 0) -> Tensor:
    return -scores(labels, height, width, seed).log()


def check_agreement(ours: Tensor, theirs: Tensor, mean: float = 1e-4, labels: float = 0.999) -> None:
    assert (ours - theirs).abs().mean() <= mean
    assert (ours.argmax(0) == theirs.argmax(0)).float().mean() >= labels


@pytest.mark.parametrize(
    ("start", "gaussian", "bilateral", "steps", "expected"),
    [
        ("labels", Gaussian(3, 3), Bilateral(50, 5, 10), 1, "label_crf_q_t1"),
        ("labels", Gaussian(3, 3), Bilateral(50, 5, 10), 10, "label_crf_q_t10"),
        ("prob", Gaussian(3, 3), Bilateral(80, 13, 10), 10, "softmax_crf_q_t10"),
        ("prob", Gaussian(1, 3), Bilateral(67, 3, 4), 10, "deeplab_crf_q_t10"),
    ],
)
def test_marginals_equal_the_peers(
    backend: Backend, start: str, gaussian: Gaussian, bilateral: Bilateral, steps: int, expected: str
) -> None:
    arrays = reference("dense_crf")
    energy = unary_from_labels(arrays["labels"], 3) if start == "labels" else unary_from_probabilities(arrays["prob"])
    marginals = dense_crf(arrays["img"], energy, gaussian, bilateral, steps, backend)
    torch.testing.assert_close(marginals, arrays[expected].float(), rtol=0, atol=1e-3)
    check_agreement(marginals, arrays[expected].float())
    assert (marginals.argmax(0) != energy.argmin(0)).float().mean() > 0.005  # or there would be nothing to agree on


def test_defaults_are_those_of_the_label_form(backend: Backend) -> None:
    arrays = reference("dense_crf")
    marginals = dense_crf(arrays["img"], arrays["unary_labels"].view(3, 120, 160), backend=backend)
    torch.testing.assert_close(marginals, arrays["label_crf_q_t10"].float(), rtol=0, atol=1e-3)


def test_both_agree_on_photographs(photographs: Path) -> None:
    pytest.importorskip("pydensecrf")
    root = photographs / "voc"
    for mask in sorted((root / "SegmentationClassAug").glob("*.png"))[:300:60]:
        image = np.array(Image.open(root / "JPEGImages" / f"{mask.stem}.jpg").convert("RGB"))
        truth = torch.as_tensor(np.array(Image.open(mask))).long()
        _, label = truth.where(truth != IGNORE, 0).unique(return_inverse=True)
        count = int(label.max()) + 1
        noisy = label.where(torch.rand(label.shape, generator=torch.Generator().manual_seed(0)) < 0.7, 0)
        energy = unary_from_labels(noisy, count)
        ours, theirs = (dense_crf(image, energy, backend=name) for name in ("torch", "pydensecrf"))
        check_agreement(ours, theirs)
        assert not torch.equal(theirs.argmax(0), noisy)


@pytest.mark.parametrize("size", [(21, 33), (7, 1), (1, 7), (1, 1)])
def test_both_agree_where_pixels_do_not_come_in_fours(size: tuple[int, int]) -> None:
    """There pydensecrf's lattice has points that are not in the photograph."""
    pytest.importorskip("pydensecrf")
    ours, theirs = (
        dense_crf(picture(*size), unary(3, *size), bilateral=NARROW, backend=name) for name in ("torch", "pydensecrf")
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.01)


def test_mean_field_equals_a_loop_over_explicit_kernels() -> None:
    image, energy, gaussian = picture(6, 8), unary(3, 6, 8), Gaussian(2, 3)
    place = torch.stack(torch.meshgrid(torch.arange(6), torch.arange(8), indexing="ij")[::-1], -1).view(48, 2).float()
    features = [place / 2, torch.cat([place / 5, torch.from_numpy(image).view(48, 3) / 30], 1)]
    q = scores(3, 6, 8).view(3, 48)
    for _ in range(4):
        message = torch.zeros(3, 48)
        for compat, feature in zip((3, 4), features, strict=True):
            kernel = permutohedral.build(feature).filter(torch.eye(48))
            norm = kernel.sum(1).rsqrt()
            message += compat * (norm[:, None] * kernel * norm @ q.T).T
        q = (message - energy.view(3, 48)).softmax(0)
    torch.testing.assert_close(mean_field(image, energy, gaussian, NARROW, steps=4), q.view(3, 6, 8))


@pytest.mark.parametrize("size", [(24, 30), (1, 7), (7, 1), (1, 1), (13, 17)])
@pytest.mark.parametrize("labels", [1, 2, 5])
def test_probabilities_sum_to_one_at_any_size(backend: Backend, labels: int, size: tuple[int, int]) -> None:
    marginals = dense_crf(picture(*size), unary(labels, *size), backend=backend)
    assert marginals.shape == (labels, *size)
    assert marginals.dtype == torch.float32
    assert marginals.min() >= 0
    torch.testing.assert_close(marginals.sum(0), torch.ones(size))


def test_one_label_has_probability_one(backend: Backend) -> None:
    energy = unary_from_labels(torch.zeros(24, 30), 1)
    assert torch.equal(dense_crf(picture(), energy, backend=backend), torch.ones(1, 24, 30))


def test_no_steps_return_the_start(backend: Backend) -> None:
    torch.testing.assert_close(dense_crf(picture(), unary(), steps=0, backend=backend), scores())


def test_no_kernels_return_the_start(backend: Backend) -> None:
    torch.testing.assert_close(dense_crf(picture(), unary(), None, None, backend=backend), scores())


@pytest.mark.parametrize(("gaussian", "bilateral"), [(Gaussian(), None), (None, NARROW)])
def test_either_kernel_may_be_left_out(gaussian: Gaussian | None, bilateral: Bilateral | None) -> None:
    pytest.importorskip("pydensecrf")
    ours, theirs = (
        dense_crf(picture(), unary(), gaussian, bilateral, backend=name) for name in ("torch", "pydensecrf")
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    both = dense_crf(picture(), unary(), Gaussian(), NARROW, steps=1)
    assert not torch.allclose(dense_crf(picture(), unary(), gaussian, bilateral, steps=1), both, atol=0.01)


def test_undecided_stays_undecided(backend: Backend) -> None:
    flat = np.full((24, 30, 3), 90, np.uint8)
    undecided = torch.full((4, 24, 30), math.log(4))
    marginals = dense_crf(flat, undecided, backend=backend)
    torch.testing.assert_close(marginals, torch.full((4, 24, 30), 0.25), rtol=0, atol=1e-5)


def test_labels_have_no_order(backend: Backend) -> None:
    order = torch.tensor([2, 0, 1])
    expected = dense_crf(picture(), unary(), bilateral=NARROW, steps=3, backend=backend)[order]
    actual = dense_crf(picture(), unary()[order], bilateral=NARROW, steps=3, backend=backend)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_a_shift_of_all_energies_of_a_pixel_does_not_count(backend: Backend) -> None:
    shift = torch.linspace(0, 5, 30)
    expected = dense_crf(picture(), unary(), bilateral=NARROW, steps=3, backend=backend)
    actual = dense_crf(picture(), unary() + shift, bilateral=NARROW, steps=3, backend=backend)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


def test_noisy_labels_are_put_right_up_to_the_edge(backend: Backend) -> None:
    truth = torch.zeros(24, 30, dtype=torch.int64)
    truth[:, 15:] = 1
    wrong = torch.rand(24, 30, generator=torch.Generator().manual_seed(0)) < 0.25
    noisy = truth.where(~wrong, 1 - truth)
    marginals = dense_crf(picture(), unary_from_labels(noisy, 2), bilateral=Bilateral(10, 30, 10), backend=backend)
    assert (marginals.argmax(0) == truth).float().mean() > 0.99


@pytest.mark.parametrize("kind", ["array", "tensor", "read-only", "mirrored", "fortran"])
def test_any_layout_of_the_image_will_do(backend: Backend, kind: str) -> None:
    image = picture()
    expected = dense_crf(image, unary(), bilateral=NARROW, backend=backend)
    layouts: dict[str, Any] = {
        "array": image.copy(),
        "tensor": torch.from_numpy(image),
        "read-only": image.copy(),
        "mirrored": image[:, ::-1].copy()[:, ::-1],
        "fortran": np.asfortranarray(image),
    }
    layouts["read-only"].setflags(write=False)
    assert torch.equal(dense_crf(layouts[kind], unary(), bilateral=NARROW, backend=backend), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_filtered_in_single(backend: Backend, dtype: torch.dtype) -> None:
    energy = unary().to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        marginals = dense_crf(picture(), energy, bilateral=NARROW, backend=backend)
    assert torch.equal(marginals, dense_crf(picture(), energy.float(), bilateral=NARROW, backend=backend))


def test_inputs_are_left_alone_and_no_gradient_is_kept(backend: Backend) -> None:
    image, energy = picture(), unary().requires_grad_()
    marginals = dense_crf(image, energy, backend=backend)
    assert np.array_equal(image, picture())
    assert torch.equal(energy, unary())
    assert not marginals.requires_grad


def test_impossible_labels_stay_impossible(backend: Backend) -> None:
    energy = unary()
    energy[2] = torch.inf
    marginals = dense_crf(picture(), energy, backend=backend)
    assert torch.equal(marginals[2], torch.zeros(24, 30))
    torch.testing.assert_close(marginals[:2], dense_crf(picture(), energy[:2], backend=backend), rtol=0, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_agrees_with_the_cpu() -> None:
    for image, energy in ((picture(60, 80), unary(3, 60, 80)), (picture(33, 21), unary(2, 33, 21))):
        ours, expected = (dense_crf(image, start, backend="torch") for start in (energy.cuda(), energy))
        assert ours.is_cuda
        check_agreement(ours.cpu(), expected)


def test_auto_takes_the_package_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(*_: Any) -> Tensor:
        return torch.zeros(1)

    monkeypatch.setattr(module, "_by_pydensecrf", chosen)
    monkeypatch.setattr(module, "_pydensecrf", lambda: sys)
    assert torch.equal(dense_crf(picture(), unary()), torch.zeros(1))
    monkeypatch.setattr(module, "_pydensecrf", lambda: None)
    assert torch.equal(dense_crf(picture(), unary()), dense_crf(picture(), unary(), backend="torch"))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(MissingError, match="not installed; pip install pydensecrf2"):
        dense_crf(picture(), unary(), backend="pydensecrf")
    assert dense_crf(picture(), unary()).shape == (3, 24, 30)


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(SettingError, match="'gpu'.*'auto', 'pydensecrf' or 'torch'"):
        dense_crf(picture(), unary(), backend="gpu")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("image", "energy", "message"),
    [
        (picture(24, 31), unary(), r"unary is \(3, 24, 30\), the image \(24, 31, 3\).*resize"),
        (picture(), unary()[0], r"unary is \(24, 30\)"),
        (picture()[..., 0], unary(), r"image is \(24, 30\) uint8; expected \(height, width, 3\) uint8"),
        (picture().transpose(2, 0, 1), unary(), r"image is \(3, 24, 30\)"),
        (picture() / 255, unary(), "image is .* float64; expected .* uint8"),
    ],
)
def test_mismatched_inputs_are_named(image: np.ndarray, energy: Tensor, message: str) -> None:
    with pytest.raises(MismatchError, match=message):
        dense_crf(image, energy)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [(Gaussian, {"sxy": 0}, "Gaussian sxy is 0"), (Bilateral, {"sxy": -1}, "sxy"), (Bilateral, {"srgb": 0}, "srgb")],
)
def test_a_kernel_without_width_is_refused(kind: Any, settings: dict[str, float], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        kind(**settings)


def test_unary_from_probabilities_by_hand() -> None:
    probabilities = torch.tensor([1.0, 0.5, 0.0, 1e-7, 1.01]).view(1, 1, 5)
    lowest = 5 * math.log(10)
    expected = torch.tensor([0.0, math.log(2), lowest, lowest, 0.0]).view(1, 1, 5)
    torch.testing.assert_close(unary_from_probabilities(probabilities), expected)
    assert unary_from_probabilities(probabilities, floor=0.5).max().item() == pytest.approx(math.log(2))


def test_unary_from_labels_by_hand() -> None:
    energy = unary_from_labels(torch.tensor([[0, 2]]), 3, certainty=0.8)
    expected = -torch.tensor([[[0.8, 0.1]], [[0.1, 0.1]], [[0.1, 0.8]]]).log()
    torch.testing.assert_close(energy, expected)


def test_unaries_equal_pydensecrfs() -> None:
    utils = pytest.importorskip("pydensecrf.utils")
    arrays = reference("dense_crf")
    torch.testing.assert_close(unary_from_labels(arrays["labels"], 3).flatten(1), arrays["unary_labels"])
    theirs = torch.as_tensor(utils.unary_from_softmax(arrays["prob"].numpy()))
    torch.testing.assert_close(unary_from_probabilities(arrays["prob"]).flatten(1), theirs)
    label = torch.randint(6, (9, 11), generator=torch.Generator().manual_seed(0))
    theirs = torch.as_tensor(utils.unary_from_labels(label.numpy(), 6, 0.55, zero_unsure=False))
    torch.testing.assert_close(unary_from_labels(label, 6, 0.55).flatten(1), theirs)


@pytest.mark.parametrize("certainty", [0.0, 1.0, -1.0])
def test_a_certainty_out_of_range_is_refused(certainty: float) -> None:
    with pytest.raises(SettingError, match=r"certainty is .*\(0, 1\)"):
        unary_from_labels(torch.zeros(2, 2), 2, certainty)


@pytest.mark.parametrize("label", [[[0, 3]], [[-1, 0]], [[0, 255]]])
def test_labels_out_of_range_are_refused(label: list[list[int]]) -> None:
    with pytest.raises(MismatchError, match=r"expected 0..2: renumber"):
        unary_from_labels(torch.tensor(label), 3)
