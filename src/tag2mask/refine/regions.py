"""Labels that follow regions: superpixels, or what another tool, such as SAM, has cut a photograph into.

The rule is that of SEPL (Chen et al. 2023, arXiv:2305.05803). Shape letters in this file: H x W the photograph.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tag2mask.classes import BACKGROUND, IGNORE
from tag2mask.errors import MissingError, SettingError
from tag2mask.io import regions as files
from tag2mask.io.records import digest_of_data


@dataclass(frozen=True)
class Regions:
    """What a label is snapped to, and when a region joins a class.

    Attributes:
        folder: of region maps or run-length codes, a file a photograph (`io.regions.read_regions`); null cuts
            superpixels by SLIC (Achanta et al. 2012), which needs scikit-image.
        superpixels: how many, about.
        compactness: of the superpixels: a higher one makes them rounder; scikit-image's default.
        inside: a region joins the class that more than this share of the region has in the label; SEPL's value.
        covers: or the class of whose pixels it holds this share at least; SEPL has 0.85, null leaves this rule out.
    """

    folder: str | None = None
    superpixels: int = 200
    compactness: float = 10.0
    inside: float = 0.5
    covers: float | None = None

    def __post_init__(self) -> None:
        covers = 1 if self.covers is None else self.covers
        if not 0.5 <= self.inside < 1 or not 0 < covers <= 1 or self.superpixels < 1:
            raise SettingError(
                f"inside {self.inside}, covers {self.covers}, superpixels {self.superpixels}; expected 0.5 <= inside < "
                "1, 0 < covers <= 1 or null, superpixels >= 1"
            )

    def require(self) -> None:
        """Raise ``MissingError`` where there is no such folder, or no scikit-image for superpixels."""
        if self.folder is not None and not Path(self.folder).is_dir():
            raise MissingError(f"no folder of regions {self.folder}; name another, or take superpixels (folder: null)")
        if self.folder is None and find_spec("skimage") is None:
            remedy = "run `pip install tag2mask[regions]`, or name a folder of regions"
            raise MissingError(f"superpixels need scikit-image, which is not installed; {remedy}")

    def state(self) -> str:
        """Return a digest of names and sizes of the files in the folder: labels of other regions are not mixed."""
        assert self.folder is not None
        paths = sorted(path for path in Path(self.folder).iterdir() if path.suffix in files.ENDINGS)
        return digest_of_data([[path.name, path.stat().st_size] for path in paths])

    def snap(self, label: np.ndarray, image: np.ndarray | None, name: str) -> np.ndarray:
        """Return the label (H, W) uint8 of a photograph (H, W, 3) of that name, snapped to its regions.

        Large regions come first, so a small one within a large one has its own class. A region that joins neither a
        class nor the background leaves its pixels as they are, and so do pixels of no region and those of ``IGNORE``.
        """
        if self.folder is not None:
            found = files.read_regions(Path(self.folder), name, (label.shape[0], label.shape[1]))
        else:
            assert image is not None
            found = files.of_map(self._superpixels(image))
        flat = label.reshape(-1)
        snapped, totals = flat.copy(), np.bincount(flat, minlength=IGNORE + 1)
        for pixels in sorted(found, key=len, reverse=True):
            counts = np.bincount(flat[pixels], minlength=IGNORE + 1)
            classes = counts[BACKGROUND + 1 : IGNORE]
            winner = int(classes.argmax()) + BACKGROUND + 1
            most = int(counts[winner])
            covering = self.covers is not None and most > 0 and most >= self.covers * totals[winner]
            if most > self.inside * len(pixels) or covering:
                snapped[pixels] = winner
            elif counts[BACKGROUND] > self.inside * len(pixels):
                snapped[pixels] = BACKGROUND
        snapped[flat == IGNORE] = IGNORE
        return snapped.reshape(label.shape)

    def _superpixels(self, image: np.ndarray) -> np.ndarray:
        """Cut a photograph (H, W, 3) uint8 into superpixels, numbered from 1, (H, W)."""
        from skimage.segmentation import slic

        numbers: np.ndarray = slic(image, self.superpixels, compactness=self.compactness, start_label=1)
        return numbers
