"""Files of one's own that the tests share: a corruption, a technique, and a picture for both."""

import numpy as np

RAIN = """
import numpy as np

def corrupt(image, severity, rng):
    drops = rng.random(image.shape[:2]) < 0.02 * severity
    image[drops] = 255
    return image
"""
DIM = '''
"""Dim light, drawn anew for every image."""
import numpy as np

GEOMETRIC = False

def augment_image(image, rng):
    return (image * rng.uniform(0.3, 1)).astype(np.uint8)
'''
IMAGE = np.random.default_rng(5).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def written(folder, name, text):
    path = folder / name
    path.write_text(text)
    return str(path)
