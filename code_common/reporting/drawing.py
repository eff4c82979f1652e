"""Pictures for people: marks and outlines over an image, told apart by shape as well as colour."""

import cv2
import numpy as np

# Orange is light and green dark, for those to whom they are one hue.
YELLOW, CYAN, GREEN, ORANGE, BLUE, WHITE = (
    (255, 225, 0), (0, 220, 255), (0, 130, 90), (255, 150, 0), (0, 60, 255), (255, 255, 255),
)  # fmt: skip


def mark(image: np.ndarray, places: np.ndarray, shape: str, colour: tuple, radius: int = 5):
    """Copy of an RGB image [H, W, 3] with a mark at each place [N, 2] (row, column).

    shape: 'circle', 'cross' or 'square'.
    """
    image = image.copy()
    for row, col in np.asarray(places).astype(int).tolist():
        if shape == "circle":
            cv2.circle(image, (col, row), radius, colour, 2, cv2.LINE_AA)
            continue
        a, b = (col - radius, row - radius), (col + radius, row + radius)
        if shape == "square":
            cv2.rectangle(image, a, b, colour, 2)
        else:
            cv2.line(image, a, b, colour, 2, cv2.LINE_AA)
            cv2.line(image, (a[0], b[1]), (b[0], a[1]), colour, 2, cv2.LINE_AA)
    return image


def outline(image: np.ndarray, instances: np.ndarray, colour: tuple) -> np.ndarray:
    """Copy of an RGB image with the inner boundary of each instance [H, W] drawn."""
    ids = instances.astype(np.float32)  # exact up to 16 million ids
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    edge = (cv2.erode(ids, cross) != ids) | (cv2.dilate(ids, cross) != ids)
    image = image.copy()
    image[edge & (instances > 0)] = colour
    return image


def tint(image: np.ndarray, mask: np.ndarray, colour: tuple, strength: float = 0.5) -> np.ndarray:
    """Copy of an RGB image with the pixels of a mask [H, W] mixed with a colour."""
    image = image.copy()
    image[mask] = (image[mask] * (1 - strength) + np.array(colour) * strength).astype(np.uint8)
    return image
