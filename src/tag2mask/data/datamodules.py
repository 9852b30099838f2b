"""LightningDataModules: from a folder on disk to batches. A new data set is one small class."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from tag2mask import classes
from tag2mask.data import coco, folder, voc
from tag2mask.data.datasets import EvaluationSet, ResumableLoader, SeededSampler, ShardSampler, TrainingSet
from tag2mask.data.photos import Photo
from tag2mask.data.transforms import EvaluationTransform, Preprocessing, TrainingTransform
from tag2mask.errors import MissingError, SettingError
from tag2mask.io import folders, provenance, records
from tag2mask.io.records import EDGES, SOFT
from tag2mask.utils.processes import cores


class WSSSDataModule(LightningDataModule):
    """Trains on image tags, scores against masks. Subclasses say what the classes and the photographs are."""

    class_names: tuple[str, ...]  # of the foreground, in the order of the mask values 1, 2, ...

    @abstractmethod
    def photos(self, split: str) -> list[Photo]:
        """Return the photographs of a split; reads lists and tags, no image."""

    def __init__(
        self,
        root: str,
        train_split: str = "train",
        val_split: str = "val",
        predict_split: str = "train",
        batch_size: int = 32,
        num_workers: int = 4,
        preprocessing: Preprocessing = Preprocessing(),
        subset: float = 1.0,
        seed: int | None = None,
        labels: str | None = None,
        soft: bool = False,
    ) -> None:
        """Set up loaders.

        Args:
            root: folder of the data set.
            train_split: whose tags are trained on; its masks are never opened.
            val_split: whose masks score the CAMs, photograph by photograph at full size.
            predict_split: whose CAMs `predict` writes.
            batch_size: of training, on each device.
            num_workers: processes that load images, one a core at most; 0 loads them in the main process.
            preprocessing: sizes, flips and normalisation.
            subset: share of the training split that is trained on and predicted, in (0, 1]; the same for every seed.
            seed: of the order and the crops; null is 0, and from the command line that of ``seed_everything``.
            labels: folder of label PNGs, such as pseudo-labels, to train on in place of tags; null trains on tags.
            soft: read with each label the CAM that it was cut from, and its edges: `tag2mask labels --soft true`.
        """
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # one image may be left to predict
        self.save_hyperparameters(logger=False, ignore=["preprocessing"])  # the network's checkpoint holds it
        self.root = Path(root)
        self.train_split, self.val_split, self.predict_split = train_split, val_split, predict_split
        self.batch_size, self.num_workers = batch_size, min(num_workers, cores())
        self.stated_preprocessing = preprocessing
        self.subset, self.seed = subset, seed or 0
        self.labels, self.soft = None if labels is None else Path(labels), soft
        self._read: set[str] = set()
        if not 0 < subset <= 1:
            raise SettingError(f"subset is {subset}; expected a share of the training split, above 0 and at most 1")

    @property
    def preprocessing(self) -> Preprocessing:
        """Sizes, flips and normalisation; what the settings leave open of it, the weights of the network say."""
        stated = self.stated_preprocessing
        network: Any = None if self.trainer is None else self.trainer.lightning_module
        return stated if network is None else stated.normalized_by(*network.normalization)

    @property
    def num_classes(self) -> int:
        """Number of foreground classes."""
        return len(self.class_names)

    def setup(self, stage: str) -> None:
        """Read the lists and tags of the splits that ``stage`` needs, once."""
        if stage in self._read:
            return
        self._read.add(stage)
        if stage == "fit":
            self.train_photos = self._training_photos()
            self.val_photos = self.photos(self.val_split)  # none where one's own photographs have no masks
        elif stage == "predict":
            self.predict_photos = self._drawn(self.predict_split)
        else:
            self.val_photos = self._drawn(self.val_split)

    def inputs(self) -> dict[str, str]:
        """Return what each photograph is trained with: its tags, or digests of its labels, and its size."""
        if self.labels is None:
            return self.describe(self.train_photos)
        return {photo.name: ", ".join(_digests(photo)) for photo in self.train_photos}

    def labelled(self) -> list[Photo]:
        """Return the photographs that are trained on with their labels as masks; none where tags are trained on."""
        return [] if self.labels is None else self.train_photos

    def describe(self, photos: Sequence[Photo]) -> dict[str, str]:
        """Describe photographs by their tags and the size of their files."""
        names = self.class_names
        tags = {p.name: None if p.tags is None else [names[value - 1] for value in p.tags] for p in photos}
        return {p.name: f"{provenance.of_tags(tags[p.name])}, {provenance.of_photo(p.image)}" for p in photos}

    def masks_digest(self) -> str:
        """Return a digest of the masks that score while training, and of their names."""
        masks = [(p.name, "no mask" if p.mask is None else provenance.of_label(p.mask)) for p in self.val_photos]
        return records.digest_of_data(masks)

    def _drawn(self, split: str) -> list[Photo]:
        """Return the photographs of a split, of the training split the share ``subset``."""
        photos = self.photos(split)
        if not photos:
            raise MissingError(f"the split {split!r} of {self.root} is empty; name another one or add photographs")
        count = max(1, round(self.subset * len(photos))) if split == self.train_split else len(photos)
        return [photos[index] for index in sorted(np.random.default_rng(0).permutation(len(photos))[:count])]

    def _training_photos(self) -> list[Photo]:
        photos = self._drawn(self.train_split)
        if self.labels is None:
            need, remedy = "tags", "tag them or train on another split"
            lacking = [photo.name for photo in photos if photo.tags is None]
        else:
            need, remedy = f"label PNG in {self.labels}", "make them with `tag2mask labels`"
            files = folders.masks_in(self.labels)
            photos = [replace(photo, mask=files.get(photo.name)) for photo in photos]
            lacking = [photo.name for photo in photos if photo.mask is None]
        if self.soft and not lacking:
            photos = self._with_soft_labels(photos)
            edges = any(photo.edge for photo in photos)  # a batch has those of all its photographs, or of none
            need, remedy = "CAM or edge map beside its label", "make the labels with `tag2mask labels --soft true`"
            lacking = [photo.name for photo in photos if photo.cam is None or (edges and photo.edge is None)]
        if lacking:
            raise MissingError(
                f"{len(lacking)} of {len(photos)} photographs of the split {self.train_split!r} have no {need}, "
                f"the first {lacking[0]}; {remedy}"
            )
        return photos

    def _with_soft_labels(self, photos: list[Photo]) -> list[Photo]:
        """Return photographs with the CAMs and the edge maps that stand beside their labels, where there are any."""
        if self.labels is None:
            raise SettingError("soft is true and labels is null; give --data.init_args.labels, or leave soft false")
        cams = folders.files_in(self.labels / SOFT, folders.CAM_ENDINGS)
        edges = folders.masks_in(self.labels / EDGES)
        return [replace(photo, cam=cams.get(photo.name), edge=edges.get(photo.name)) for photo in photos]

    def _ranks(self) -> tuple[int, int]:
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)

    def train_dataloader(self) -> ResumableLoader:
        """Return shuffled crops; the last, smaller batch is left out unless it is the only one."""
        transform = TrainingTransform(self.preprocessing)
        data = TrainingSet(self.train_photos, self.num_classes, transform, masks=self.labels is not None)
        sampler = SeededSampler(data, self.seed, *self._ranks())
        to_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        count = self.num_workers
        loading: Any = {"num_workers": count, "persistent_workers": count > 0, "pin_memory": to_gpu}
        drop = len(sampler) >= self.batch_size
        return ResumableLoader(data, self.batch_size, sampler=sampler, drop_last=drop, **loading)

    def _whole(self, photos: list[Photo], masks: bool) -> DataLoader[dict[str, Any]]:
        data = EvaluationSet(photos, self.num_classes, EvaluationTransform(self.preprocessing), masks)
        sampler = ShardSampler(data, *self._ranks())
        return DataLoader(data, batch_size=1, sampler=sampler, num_workers=self.num_workers)

    def val_dataloader(self) -> DataLoader[dict[str, Any]] | list[Any]:
        """Return whole photographs with masks, one a batch, every one of the split; without any, an empty list."""
        count, ranks = len(self.val_photos), self._ranks()[0]
        if 0 < count < ranks:  # the other processes would wait for one without a photograph
            raise SettingError(
                f"{count} photographs in the split {self.val_split!r} for {ranks} processes; take fewer devices"
            )
        return self._whole(self.val_photos, masks=True) if count else []

    test_dataloader = val_dataloader

    def predict_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return whole photographs, one a batch, without masks, and without those that no callback needs."""
        trainer: Any = self.trainer
        asked = [each for each in getattr(trainer, "callbacks", ()) if hasattr(each, "photos_done")]
        done = [each.photos_done(trainer, trainer.lightning_module) for each in asked]  # names; weights are loaded
        left_out = frozenset.intersection(*done) if done else frozenset()
        return self._whole([photo for photo in self.predict_photos if photo.name not in left_out], masks=False)


def _digests(photo: Photo) -> Iterator[str]:
    """Describe what a photograph is trained with: label, and edge map and CAM where there are any; its size."""
    yield from (provenance.of_label(path) for path in (photo.mask, photo.edge) if path is not None)
    if photo.cam is not None:
        yield provenance.of_cam(photo.cam)
    yield provenance.of_photo(photo.image)


class VOCDataModule(WSSSDataModule):
    """PASCAL VOC 2012 in the devkit's layout; ``root`` is the folder VOCdevkit/VOC2012."""

    class_names = classes.VOC[1:]

    def photos(self, split: str) -> list[Photo]:
        """Return the photographs of ``train``, ``val``, ``test``, ``trainaug`` or a list in ImageSets/Segmentation."""
        return voc.voc_photos(self.root, split)


class FolderDataModule(WSSSDataModule):
    """One's own photographs, or the sample set: see `tag2mask.data.folder` for the layout of ``root``."""

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Classes that the folder names."""
        return folder.class_names(self.root)

    def photos(self, split: str) -> list[Photo]:
        """Return the photographs of ``<split>.txt``, or what `folder.folder_photos` takes in its place."""
        return folder.folder_photos(self.root, split)


class COCODataModule(WSSSDataModule):
    """MS COCO 2014 as `tag2mask prepare coco` leaves it; ``root`` is the folder of ``train2014`` and ``val2014``."""

    class_names = classes.COCO[1:]

    def __init__(self, root: str, prepared: str | None = None, **settings: Any) -> None:
        """Set up loaders.

        Args:
            root: folder of the data set.
            prepared: folder of the masks, tags and lists that `tag2mask prepare coco --out` wrote; null: ``root``.
            **settings: those of all data sets.
        """
        super().__init__(root, **settings)
        self.prepared = self.root if prepared is None else Path(prepared)

    def photos(self, split: str) -> list[Photo]:
        """Return the photographs of ``train``, ``val``, or another list ``<split>.txt`` in ``prepared``."""
        return coco.coco_photos(self.root, self.prepared, split)
