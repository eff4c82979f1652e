"""Marks, outlines and colours over an image, told apart by shape as well as by colour."""

import cv2
import numpy as np

Colour = tuple[int, int, int]  # RGB, 0..255

# Orange is light and green is dark: some people see both as one hue.
YELLOW, CYAN, GREEN = (255, 225, 0), (0, 220, 255), (0, 130, 90)
ORANGE, BLUE, WHITE = (255, 150, 0), (0, 60, 255), (255, 255, 255)


def mark(
    image: np.ndarray, places: np.ndarray, shape: str, colour: Colour, radius: int = 5
) -> np.ndarray:
    """Copy of an RGB image [H, W, 3] with a mark at each place [N, 2] (row, column).

    shape: 'circle', 'cross' or 'square'; radius: in pixels.
    """
    image = image.copy()
    for row, col in np.asarray(places).astype(int).tolist():
        left, top = col - radius, row - radius
        right, bottom = col + radius, row + radius
        if shape == "circle":
            cv2.circle(image, (col, row), radius, colour, 2, cv2.LINE_AA)
        elif shape == "square":
            cv2.rectangle(image, (left, top), (right, bottom), colour, 2)
        else:
            cv2.line(image, (left, top), (right, bottom), colour, 2, cv2.LINE_AA)
            cv2.line(image, (left, bottom), (right, top), colour, 2, cv2.LINE_AA)
    return image


def outline(image: np.ndarray, instances: np.ndarray, colour: Colour) -> np.ndarray:
    """Copy of an RGB image with the inner boundary of each instance drawn.

    instances [H, W]: 0 is background.
    """
    ids = instances.astype(np.float32)  # exact up to 16 million ids
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    edge = (cv2.erode(ids, cross) != ids) | (cv2.dilate(ids, cross) != ids)
    image = image.copy()
    image[edge & (instances > 0)] = colour
    return image


def tint(image: np.ndarray, mask: np.ndarray, colour: Colour, strength: float = 0.5) -> np.ndarray:
    """Copy of an RGB image whose pixels under a mask [H, W] are mixed with a colour.

    strength: share of the colour, 0..1.
    """
    image = image.copy()
    image[mask] = (image[mask] * (1 - strength) + np.array(colour) * strength).astype(np.uint8)
    return image
