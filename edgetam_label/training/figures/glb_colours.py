"""Invented coats for animals and paints for things; all colours are BGR in 0..255."""

from __future__ import annotations

import cv2
import numpy as np

from edgetam_label.training.figures.arrays import FloatArray, IntArray

FUR = np.array(
    [[225, 232, 238], [170, 200, 222], [110, 165, 205], [70, 120, 175], [45, 90, 150],
     [38, 68, 112], [28, 45, 75], [30, 32, 36], [70, 72, 76], [125, 128, 132], [60, 110, 190]],
    dtype=np.float64,
)  # fmt: skip
DETAILS = ("eye", "pupil", "teeth", "tooth", "nose", "tongue", "mouth", "nostril")
KEEP_OWN = 0.4
BLOTCHED = 0.4
COUNTERSHADED = 0.3
DIPPED = 0.35
STRIPED = 0.08
PLAINEST_FUR = 45.0  # a second colour nearer than this to the first would not be seen


def is_detail(name: str) -> bool:
    """Whether the material called name is a small part, such as an eye, that stays as it is."""
    return any(word in name.lower() for word in DETAILS)


def any_colour(rng: np.random.Generator) -> FloatArray:
    """A colour (3,): vivid, muted, dark or light."""
    saturation, value = [(190, 200), (90, 160), (80, 60), (25, 225)][int(rng.integers(4))]
    pixel = np.array(
        [rng.uniform(0, 180), rng.uniform(0.7, 1.3) * saturation, rng.uniform(0.8, 1.15) * value]
    ).reshape(1, 1, 3)
    small = np.clip(pixel, 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_HSV2BGR)[0, 0], dtype=np.float64)


def fur_colour(rng: np.random.Generator) -> FloatArray:
    """A colour (3,) that fur comes in, one time in fifteen any other."""
    if rng.random() < 1 / 15:
        return any_colour(rng)
    return np.asarray(FUR[int(rng.integers(len(FUR)))] * rng.uniform(0.88, 1.1, 3))


def _different(colour: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Another fur colour (3,), well away from colour."""
    other = fur_colour(rng)
    for _ in range(8):
        if np.linalg.norm(other - colour) > PLAINEST_FUR:
            break
        other = fur_colour(rng)
    return other


def repainted(colours: FloatArray, rng: np.random.Generator) -> FloatArray:
    """colours (F, 3), all with the same random change of hue, saturation and brightness."""
    pixels = np.clip(colours, 0, 255).astype(np.uint8)[None]
    hsv = cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV)[0].astype(np.float64)
    hsv[:, 0] = (hsv[:, 0] + rng.normal(0, 7)) % 180
    hsv[:, 1] *= rng.uniform(0.6, 1.2)
    hsv[:, 2] = 255 * (hsv[:, 2] / 255) ** rng.uniform(0.55, 1.15)
    changed = np.clip(hsv, 0, 255).astype(np.uint8)[None]
    return np.asarray(cv2.cvtColor(changed, cv2.COLOR_HSV2BGR)[0], dtype=np.float64)


def _per_material(
    colours: FloatArray, material: IntArray, names: tuple[str, ...], paints: list[FloatArray]
) -> FloatArray:
    """colours (F, 3), those of materials other than details replaced by paints[material]."""
    plain = np.array([not is_detail(name) for name in names])
    return np.where(plain[material][:, None], np.array(paints)[material], colours)


def thing_colours(
    colours: FloatArray, material: IntArray, names: tuple[str, ...], rng: np.random.Generator
) -> FloatArray:
    """BGR (F, 3) for faces of colours (F, 3) and material (F,): the model's own, or new paints."""
    if rng.random() < KEEP_OWN:
        return repainted(colours, rng)
    paints = [any_colour(rng) if rng.random() < 0.6 else fur_colour(rng) for _ in names]
    return _per_material(colours, material, names, paints)


def waves(places: FloatArray, frequency: float, rng: np.random.Generator) -> FloatArray:
    """Smooth noise (n,) of about unit spread at places (n, 3); frequency in waves per unit."""
    directions = rng.normal(size=(7, 3)) * 2 * np.pi * frequency / np.sqrt(3)
    phases = rng.uniform(0, 2 * np.pi, 7)
    return np.asarray(np.sin(places @ directions.T + phases).sum(axis=1) / np.sqrt(3.5))


def animal_colours(
    colours: FloatArray,
    material: IntArray,
    names: tuple[str, ...],
    places: FloatArray,
    upward: FloatArray,
    rng: np.random.Generator,
) -> FloatArray:
    """BGR (F, 3): a coat for faces of colours (F, 3), material (F,) and centres places (F, 3).

    places are those of the unposed animal, its longest side 1, so that the coat follows the pose;
    upward (F,) is the cosine between the normal and up.
    """
    main = fur_colour(rng)
    if rng.random() < KEEP_OWN:
        coat = repainted(colours, rng)
    else:
        biggest = int(np.argmax(np.bincount(material, minlength=len(names))))
        paints = [main if rng.random() < 0.25 else _different(main, rng) for _ in names]
        paints[biggest] = main
        coat = _per_material(colours, material, names, paints)
    second = _different(coat.mean(axis=0), rng)
    softness = rng.uniform(0.02, 0.3)
    worn = np.zeros(len(coat))

    def wear(depth: FloatArray) -> None:
        """Turn the coat to its second colour where depth (F,) is above 0, softly at the edge."""
        np.maximum(worn, np.clip(0.5 + depth / softness, 0.0, 1.0), out=worn)

    if rng.random() < BLOTCHED:
        wear(waves(places, rng.uniform(1.0, 2.6), rng) - rng.uniform(-0.2, 1.0))
    if rng.random() < COUNTERSHADED:
        wear(rng.uniform(-0.6, -0.1) - upward - 0.25 * waves(places, 4.0, rng))
    if rng.random() < DIPPED:
        # one end of the animal: its feet, its face, its hind part
        axis, way = ((1, 1.0), (2, 1.0), (2, -1.0))[int(rng.integers(3))]
        depth = way * places[:, axis] + 0.05 * waves(places, 2.5, rng)
        depth -= depth.min() + np.ptp(depth) * rng.uniform(0.12, 0.45)
        wear(-6.0 * depth)
    if rng.random() < STRIPED:
        along = places[:, 2] + 0.03 * waves(places, 2.0, rng)
        wear(np.sin(2 * np.pi * rng.uniform(7, 14) * along) - rng.uniform(0.0, 0.7))
    worn[np.array([is_detail(name) for name in names])[material]] = 0.0
    return coat + worn[:, None] * (second - coat)
