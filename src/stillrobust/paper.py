"""The values the paper prints, as data: "Does Robustness on ImageNet Transfer to Downstream Tasks?" (CVPR 2022).

Scores and drops are in percent, as printed.
"""

from typing import NamedTuple


class GroupDrops(NamedTuple):
    """One line of Tables 1 and 2: the performance drop by corruption group, in %."""

    model: str
    noise: float
    blur: float
    digital: float
    weather: float


class CleanAndCorrupted(NamedTuple):
    """One column of Tables 4 and 5: the score on clean and on corrupted data, and the drop, in %."""

    model: str
    clean: float
    corrupted: float
    drop: float


TABLE_1 = (  # COCO object detection, fixed-feature transfer
    GroupDrops("Regular", noise=36.09, blur=44.00, digital=21.17, weather=17.59),
    GroupDrops("ANT", noise=21.90, blur=39.25, digital=17.70, weather=16.22),
    GroupDrops("DeepAug+", noise=16.39, blur=29.25, digital=15.49, weather=11.27),
    GroupDrops("Swin-T", noise=18.01, blur=38.18, digital=17.90, weather=10.12),
)
TABLE_2 = (  # ADE20K semantic segmentation, fixed-feature transfer
    GroupDrops("Regular", noise=48.98, blur=29.42, digital=17.01, weather=25.68),
    GroupDrops("ANT", noise=17.78, blur=23.41, digital=12.99, weather=25.62),
    GroupDrops("DeepAug+", noise=20.07, blur=19.47, digital=13.01, weather=19.12),
    GroupDrops("Swin-T", noise=13.57, blur=23.50, digital=16.42, weather=14.28),
)
TABLE_4 = (  # COCO object detection, box AP; PR-PRIME augments with PRIME during the transfer, too
    CleanAndCorrupted("PRIME", clean=36.42, corrupted=28.30, drop=22.29),
    CleanAndCorrupted("PR-PRIME", clean=31.47, corrupted=24.80, drop=21.21),
)
TABLE_5 = (  # ADE20K semantic segmentation, mIoU
    CleanAndCorrupted("PRIME", clean=40.64, corrupted=28.56, drop=29.73),
    CleanAndCorrupted("PR-PRIME", clean=40.91, corrupted=30.56, drop=25.31),
)
BY_GROUP = {"detection": TABLE_1, "segmentation": TABLE_2}
