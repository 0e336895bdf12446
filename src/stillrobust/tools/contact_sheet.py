"""A contact sheet: one photo under several corruptions and severities."""

import cv2
import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from stillrobust.samples import Image
from stillrobust.tools.corrupt_folder import CorruptionPlan
from stillrobust.user_files import display_name

# larger photos are shrunk first, so that corruptions look as on a photo of ordinary size
LONGEST = 512
THUMB = 160  # width of an image in the sheet
MARGIN, LINE = 140, 24


def contact_sheet(image: Image, plan: CorruptionPlan, image_id: str = "photo") -> Image:
    """Draw a sheet with a row for each corruption and a column for each severity.

    Args:
        image: uint8 (H, W, 3) RGB.
        plan: Corruptions, severities and protocol.
        image_id: Keys the draws.

    Returns:
        uint8 (H, W, 3). The clean photo is in the first column.
    """
    scale = min(1.0, LONGEST / max(image.shape[:2]))
    if scale < 1:
        size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    tall = max(1, round(image.shape[0] * THUMB / image.shape[1]))
    height, width = (
        LINE + len(plan.corruptions) * (tall + 4),
        MARGIN + (len(plan.severities) + 1) * (THUMB + 4),
    )
    sheet = Pillow.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, head in enumerate(
        ("clean", *(f"severity {severity}" for severity in plan.severities))
    ):
        draw.text((MARGIN + column * (THUMB + 4) + 4, 4), head, "black", font)
    for row, name in enumerate(plan.corruptions):
        top = LINE + row * (tall + 4)
        draw.text((4, top + tall // 2 - 8), display_name(name).replace("_", " "), "black", font)
        for column, severity in enumerate((0, *plan.severities)):
            if column == 0 and row > 0:
                continue
            made = plan.corrupted(image, name, severity, image_id)
            thumb = cv2.resize(made, (THUMB, tall), interpolation=cv2.INTER_AREA)
            sheet.paste(Pillow.fromarray(thumb), (MARGIN + column * (THUMB + 4), top))
    return np.array(sheet)
