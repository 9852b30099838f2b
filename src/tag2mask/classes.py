"""Class names, mask values and colours of the data sets."""

import re
from functools import cache

import numpy as np

BACKGROUND = 0  # mask value of the background
IGNORE = 255  # mask value of pixels that are neither trained on nor scored

VOC = tuple(
    (
        "background,aeroplane,bicycle,bird,boat,bottle,bus,car,cat,chair,cow,diningtable,dog,horse,motorbike,person,"
        "pottedplant,sheep,sofa,train,tvmonitor"
    ).split(",")
)
"""PASCAL VOC 2012, by mask value."""

COCO = tuple(
    (
        "background,person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,"
        "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,"
        "suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,"
        "tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,"
        "hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,"
        "cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,"
        "toothbrush"
    ).split(",")
)
"""MS COCO 2014, by mask value (1 to 80, in the order of the annotation file's category ids)."""


def is_background(name: str) -> bool:
    """Say whether a name is a spelling of the background: ``Background``, ``_background_``, ``0: background``."""
    return re.sub(r"[\W\d_]", "", name).casefold() == VOC[BACKGROUND]


@cache
def palette() -> np.ndarray:
    """Return the VOC colour map, (256, 3) uint8: the colour of each mask value, by the devkit's bit interleaving."""
    values, channels, bits = np.ogrid[:256, :3, :8]
    colours: np.ndarray = (((values >> (3 * bits + channels)) & 1) << (7 - bits)).sum(2).astype(np.uint8)
    colours.setflags(write=False)  # there is one for all
    return colours
