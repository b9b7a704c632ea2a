"""Draw coloured meshes as RGBA cut-outs: camera, shading and a painter's-algorithm rasteriser."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import cv2
import numpy as np

from edgetam_label.training.figures.arrays import FloatArray, ImageArray, IntArray

SUPERSAMPLING = 2
SHIFT = 4  # bits of a pixel's fraction in OpenCV's coordinates
MARGIN = 2  # transparent pixels around the cut-out
SHADE_LIMITS = (0.55, 1.1)  # wider and a part no longer shows its own colour


@dataclass(frozen=True)
class Layer:
    """One mesh: vertices (V, 3), faces (F, 4), colours (F, 3) as BGR in 0..255.

    two_sided meshes, thin sheets such as hair and cloth, are drawn from behind as well. push_back
    moves the layer away from the camera in the depth sorting only: whatever lies closely over it
    then covers it.
    """

    vertices: FloatArray
    faces: IntArray
    colours: FloatArray
    two_sided: bool = False
    push_back: float = 0.0


@dataclass(frozen=True)
class View:
    """Degrees of the camera's yaw, pitch and roll; its distance in heights of the subject.

    light is a direction (x right, y up, z to the camera); ambient in 0..1 evens the shading out.
    """

    yaw: float
    pitch: float
    roll: float
    distance: float
    light: tuple[float, float, float]
    ambient: float

    def rotation(self) -> FloatArray:
        """(3, 3): from the world to x right, y up, z towards the camera."""
        result = np.eye(3)
        for axis, degrees in ((1, self.yaw), (0, self.pitch), (2, self.roll)):
            vector = np.zeros(3)
            vector[axis] = np.radians(degrees)
            result = np.asarray(cv2.Rodrigues(vector)[0]) @ result
        return result


@dataclass(frozen=True)
class _Faces:
    """Faces ready to draw: corners (n, 4, 2) on the image plane, depth (n,), BGR (n, 3)."""

    corners: FloatArray
    depth: FloatArray
    colours: FloatArray


def random_light(rng: np.random.Generator) -> tuple[float, float, float]:
    """Where light comes from, mostly from above and from the camera's side."""
    x, y, z = rng.normal([0.0, 0.9, 0.8], [0.8, 0.5, 0.5]).tolist()
    return x, y, z


def random_view(rng: np.random.Generator) -> View:
    light = random_light(rng)
    return View(
        yaw=float(rng.uniform(-180, 180)),
        pitch=float(np.clip(rng.normal(6, 10), -25, 25)),
        roll=float(rng.normal(0, 5)),
        distance=float(rng.uniform(1.8, 5.0)),
        light=light,
        ambient=float(rng.uniform(0.35, 0.8)),
    )


def draw_moments(
    moments: Sequence[tuple[list[Layer], View]], longer_side: int, rng: np.random.Generator
) -> list[ImageArray]:
    """One figure at one moment or several: cut-outs (h, w, 4), BGRA with straight alpha.

    All are of one size, seen from one place, and together tightly cropped to the longer side.
    Raises ValueError where no face can be seen at one of them.
    """
    layers, view = moments[0]
    everything = np.concatenate([layer.vertices[np.unique(layer.faces)] for layer in layers])
    centre = (everything.min(axis=0) + everything.max(axis=0)) / 2
    away = view.distance * float(np.ptp(everything, axis=0).max())
    grains = [rng, *(deepcopy(rng) for _ in moments[1:])]  # the same at every moment
    seen = [
        _all_seen(layers, centre, away, view, grain)
        for (layers, view), grain in zip(moments, grains, strict=True)
    ]
    low = np.min([faces.corners.min(axis=(0, 1)) for faces in seen], axis=0)
    high = np.max([faces.corners.max(axis=(0, 1)) for faces in seen], axis=0)
    scale = (longer_side - 2 * MARGIN) * SUPERSAMPLING / float((high - low).max())
    width, height = np.ceil((high - low) * scale / SUPERSAMPLING).astype(int) + 2 * MARGIN
    return [
        _paint(
            (faces.corners - low) * scale + MARGIN * SUPERSAMPLING,
            faces.depth,
            faces.colours,
            (int(width), int(height)),
        )
        for faces in seen
    ]


def _all_seen(
    layers: list[Layer], centre: FloatArray, away: float, view: View, rng: np.random.Generator
) -> _Faces:
    rotation = view.rotation()
    seen = [_seen_faces(layer, rotation, centre, away, view, rng) for layer in layers]
    corners = np.concatenate([faces.corners for faces in seen])
    if not len(corners):
        raise ValueError("no face of the meshes faces the camera")
    depth = np.concatenate([faces.depth for faces in seen])
    return _Faces(corners, depth, np.concatenate([faces.colours for faces in seen]))


def _seen_faces(
    layer: Layer,
    rotation: FloatArray,
    centre: FloatArray,
    away: float,
    view: View,
    rng: np.random.Generator,
) -> _Faces:
    points = (layer.vertices - centre) @ rotation.T
    flat = points[:, :2] * (away / (away - points[:, 2:])) * [1.0, -1.0]
    corners = flat[layer.faces]
    first, second = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
    # image y points down, so a face whose corners run counterclockwise has a negative area
    front = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0] < 0
    normals = _smooth_normals(points, layer.faces)
    normals[~front] *= -1.0
    light = np.array(view.light) / max(float(np.linalg.norm(view.light)), 1e-9)
    lit = view.ambient + (1.1 - view.ambient) * np.maximum(normals @ light, 0.0)
    shade = np.clip(lit + rng.normal(0.0, 0.012, len(lit)), *SHADE_LIMITS)
    # the inside of cloth and hair lies in shadow
    shade[~front] = np.maximum(shade[~front] * 0.8, SHADE_LIMITS[0])
    keep = np.ones_like(front) if layer.two_sided else front
    depth = points[:, 2][layer.faces].mean(axis=1) - layer.push_back
    return _Faces(corners[keep], depth[keep], (layer.colours * shade[:, None])[keep])


def _smooth_normals(points: FloatArray, faces: IntArray) -> FloatArray:
    """Unit normals (F, 3), averaged over the faces around each corner: no facets in the shading."""
    flat = np.cross(
        points[faces[:, 2]] - points[faces[:, 0]], points[faces[:, 3]] - points[faces[:, 1]]
    )
    corners = faces.ravel()
    at_vertex = np.stack(
        [np.bincount(corners, np.repeat(flat[:, axis], 4), len(points)) for axis in range(3)],
        axis=1,
    )
    normals = at_vertex[faces].mean(axis=1) + 0.2 * flat
    return np.asarray(normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12))


def _paint(
    corners: FloatArray, depth: FloatArray, colours: FloatArray, size: tuple[int, int]
) -> ImageArray:
    """Fill the faces from back to front, then shrink the picture to size, width and height."""
    canvas = np.zeros((size[1] * SUPERSAMPLING, size[0] * SUPERSAMPLING, 4), np.uint8)
    order = np.argsort(depth)
    polygons = np.rint(corners[order] * (1 << SHIFT)).astype(np.int32)
    paints = np.clip(np.rint(colours[order]), 0, 255).tolist()
    for polygon, (blue, green, red) in zip(polygons, paints, strict=True):
        cv2.fillConvexPoly(canvas, polygon, (blue, green, red, 255), cv2.LINE_8, SHIFT)
    small = cv2.resize(canvas, size, interpolation=cv2.INTER_AREA).astype(np.float64)
    # the empty canvas is black, so the averages came out multiplied by their alpha
    alpha = small[:, :, 3:]
    straight = small[:, :, :3] * 255.0 / np.maximum(alpha, 1.0)
    whole = np.concatenate([straight, alpha], axis=2)
    return np.asarray(np.clip(np.rint(whole), 0, 255), dtype=np.uint8)


def subdivided(vertices: FloatArray, faces: IntArray) -> tuple[FloatArray, IntArray]:
    """vertices (V, n) and faces (F, 4) with four flat faces in the place of each; the first V stay.

    Attributes of vertices which are stacked as further columns are interpolated like places.
    """
    count = len(vertices)
    after = np.roll(faces, -1, axis=1)
    keys = np.minimum(faces, after) * count + np.maximum(faces, after)
    edges, edge_of = np.unique(keys, return_inverse=True)
    middles = (vertices[edges // count] + vertices[edges % count]) / 2
    edge = count + edge_of.reshape(faces.shape)
    centre = count + len(edges) + np.repeat(np.arange(len(faces))[:, None], 4, axis=1)
    split = np.stack([faces, edge, centre, np.roll(edge, 1, axis=1)], axis=2).reshape(-1, 4)
    return np.concatenate([vertices, middles, vertices[faces].mean(axis=1)]), split


def largest_piece(image: ImageArray, smallest_share: float = 0.97) -> ImageArray | None:
    """image (h, w, 4) with only its largest connected piece.

    None where the loose pieces hold more than 1 - smallest_share of the pixels.
    """
    solid = (image[:, :, 3] > 0).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=8)
    if count < 2:
        return None
    areas = stats[1:, cv2.CC_STAT_AREA]
    biggest = int(np.argmax(areas)) + 1
    if areas.max() < smallest_share * areas.sum():
        return None
    return np.where((labels == biggest)[:, :, None], image, np.uint8(0))


def trimmed(images: Sequence[ImageArray]) -> list[ImageArray]:
    """Images (h, w, 4) of one size, all cropped to MARGIN around what any of them shows."""
    solid = np.max([image[:, :, 3] for image in images], axis=0)
    left, top, width, height = cv2.boundingRect((solid > 0).astype(np.uint8))
    margin = ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0))
    return [
        np.asarray(np.pad(image[top : top + height, left : left + width], margin), dtype=np.uint8)
        for image in images
    ]


def without_pinholes(image: ImageArray, largest: int = 24) -> ImageArray:
    """image (h, w, 4), its enclosed gaps of up to largest pixels filled from around them.

    Seams of cloth which a pose pulls apart leave them; a gap between arm and body is larger.
    """
    porous = (image[:, :, 3] < 255).astype(np.uint8)
    # the outside is all one: the margin joins it
    count, labels, stats, _ = cv2.connectedComponentsWithStats(porous, connectivity=8)
    small = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] <= largest)
    holes = np.isin(labels, small[small > 0]).astype(np.uint8)
    colour = cv2.inpaint(np.ascontiguousarray(image[:, :, :3]), holes, 2, cv2.INPAINT_TELEA)
    alpha = np.where(holes > 0, 255, image[:, :, 3]).astype(np.uint8)
    return np.concatenate([colour, alpha[:, :, None]], axis=2)
