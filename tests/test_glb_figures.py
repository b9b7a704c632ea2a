"""Models from .glb files: a box of two materials, two joints and an animation, and what fails."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgetam_label.training.figures.arrays import FloatArray, IntArray
from edgetam_label.training.figures.cutout import draw_cutouts
from edgetam_label.training.figures.glb_colours import FUR, animal_colours, is_detail, thing_colours
from edgetam_label.training.figures.glb_figures import (
    Folder,
    choose_folder,
    dressed,
    is_animal,
    random_figure,
    read_folder,
    view_from_above,
)
from edgetam_label.training.figures.glb_files import GlbError, read_glb
from edgetam_label.training.figures.glb_models import Channel, Nodes, world_transforms
from edgetam_label.training.figures.glb_surfaces import (
    Surface,
    cut_small,
    rounded,
    vertex_normals,
    welded,
)
from edgetam_label.training.synthetic_pictures import Pictures

# four rings of four corners, at the heights 0, 1, 2 and 3
RINGS = [[x, y, z] for y in (0, 1, 2, 3) for x, z in ((-1, 1), (1, 1), (1, -1), (-1, -1))]
FLOATS, SHORTS, BYTES = 5126, 5123, 5121


def box_faces(low: int, high: int) -> list[list[int]]:
    """Outward triangles of the walls between the rings low and high, with floor or lid."""
    faces = []
    for ring in range(low, high):
        for side in range(4):
            a, b = 4 * ring + side, 4 * ring + (side + 1) % 4
            faces += [[a, b, b + 4], [a, b + 4, a + 4]]
    if low == 0:
        faces += [[0, 2, 1], [0, 3, 2]]
    if high == 3:
        faces += [[12, 13, 14], [12, 14, 15]]
    return faces


class Writer:
    """Collects accessors, each in a view of its own, and writes them as a .glb file."""

    def __init__(self) -> None:
        self.binary = b""
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(self, table: Any, component: int, shape: str, stride: int = 0) -> int:
        kind = {FLOATS: "<f4", SHORTS: "<u2", BYTES: "u1"}[component]
        rows = np.asarray(table).astype(kind)
        packed = [row.tobytes().ljust(stride, b"\xaa") for row in rows]
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(self.binary)}
        if stride:
            view["byteStride"] = stride
        data = b"".join(packed)
        self.views.append(view | {"byteLength": len(data)})
        self.binary += data.ljust(-(-len(data) // 4) * 4, b"\0")
        self.accessors.append(
            {
                "bufferView": len(self.views) - 1,
                "componentType": component,
                "count": len(rows),
                "type": shape,
            }
        )
        return len(self.accessors) - 1

    def write(self, path: Path, description: dict[str, Any]) -> None:
        whole = {"asset": {"version": "2.0"}, "accessors": self.accessors}
        whole |= {"bufferViews": self.views, "buffers": [{"byteLength": len(self.binary)}]}
        text = json.dumps(whole | description).encode()
        text = text.ljust(-(-len(text) // 4) * 4)
        chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
        chunks += struct.pack("<II", len(self.binary), 0x004E4942) + self.binary
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)


Change = Callable[[dict[str, Any]], object]


def write_box(path: Path, change: Change = lambda description: None) -> None:
    """The lower third is red and follows the joint "root"; the rest is blue and bends to "head".

    The head's joint is at the height 1 and turns by 90 degrees about z within 2 seconds.
    """
    writer = Writer()
    share = np.array([0.0, 0.0, 0.6, 1.0])[np.repeat(np.arange(4), 4)]
    weights = np.stack([1 - share, share, 0 * share, 0 * share], axis=1)
    attributes = {
        "POSITION": writer.add(RINGS, FLOATS, "VEC3", stride=20),
        "JOINTS_0": writer.add(np.tile([0, 1, 0, 0], (16, 1)), BYTES, "VEC4"),
        "WEIGHTS_0": writer.add(weights * 255, BYTES, "VEC4"),
    }
    writer.accessors[attributes["WEIGHTS_0"]]["normalized"] = True
    primitives = [
        {
            "attributes": attributes,
            "material": number,
            "indices": writer.add(np.ravel(box_faces(*rings)).reshape(-1, 1), SHORTS, "SCALAR"),
        }
        for number, rings in enumerate([(0, 1), (1, 3)])
    ]
    inverse = np.tile(np.eye(4), (2, 1, 1))
    inverse[1, :3, 3] = [0, -1, 0]
    half = np.sqrt(0.5)
    description: dict[str, Any] = {
        "nodes": [
            {"name": "Box", "mesh": 0, "skin": 0},
            {"name": "Root", "children": [2]},
            {"name": "Head", "translation": [0, 1, 0]},
        ],
        "meshes": [{"primitives": primitives}],
        "materials": [
            {"name": name, "pbrMetallicRoughness": {"baseColorFactor": factor}}
            for name, factor in (("Main", [1, 0, 0, 1]), ("Eyes", [0, 0, 0.5, 1]))
        ],
        "skins": [
            {
                "joints": [1, 2],
                # glTF stores columns
                "inverseBindMatrices": writer.add(
                    inverse.transpose(0, 2, 1).reshape(2, 16), FLOATS, "MAT4"
                ),
            }
        ],
        "animations": [
            {
                "name": "Bow",
                "channels": [{"sampler": 0, "target": {"node": 2, "path": "rotation"}}],
                "samplers": [
                    {
                        "input": writer.add([[0.0], [2.0]], FLOATS, "SCALAR"),
                        "output": writer.add([[0, 0, 0, 1], [0, 0, half, half]], FLOATS, "VEC4"),
                    }
                ],
            }
        ],
    }
    change(description)
    writer.write(path, description)


@pytest.fixture
def box(tmp_path: Path) -> Path:
    folder = tmp_path / "boxes"
    folder.mkdir()
    write_box(folder / "box.glb")
    return folder / "box.glb"


def box_surface() -> Surface:
    points = np.array(RINGS, dtype=np.float64)
    faces = np.array(box_faces(0, 3))
    return Surface(points, points, faces, np.arange(len(faces)))


def area_and_sum(points: FloatArray, triangles: IntArray) -> tuple[float, FloatArray]:
    first, second, third = (points[triangles[:, corner]] for corner in range(3))
    normals = np.cross(second - first, third - first) / 2
    return float(np.linalg.norm(normals, axis=1).sum()), normals.sum(axis=0)


def test_reading(box: Path) -> None:
    model = read_glb(box)
    assert model.name == "box"
    assert model.triangles.shape == (28, 3)
    # the second primitive's vertices come after the 16 of the first
    np.testing.assert_allclose(model.vertices[16:], RINGS)
    assert model.triangles[:10].max() < 16 <= model.triangles[10:].min()
    assert model.material.tolist() == [0] * 10 + [1] * 18
    assert model.material_names == ("Main", "Eyes", "")
    np.testing.assert_allclose(model.colours[0], [0, 0, 255])
    np.testing.assert_allclose(model.colours[-1], [255 * 0.5 ** (1 / 2.2), 0, 0])
    np.testing.assert_allclose(model.weights.sum(axis=1), 1)
    np.testing.assert_allclose(model.weights[8], [0.4, 0.6, 0, 0], atol=0.01)
    assert is_animal(model)


def test_posing_at_a_time(box: Path) -> None:
    model = read_glb(box)
    bow = model.animations[0]
    assert (bow.name, bow.length) == ("Bow", 2.0)
    np.testing.assert_allclose(model.posed(), model.vertices, atol=1e-9)
    np.testing.assert_allclose(model.posed(bow, 0.0), model.vertices, atol=1e-9)
    bent = model.posed(bow, 2.0)
    np.testing.assert_allclose(bent[:8], RINGS[:8], atol=1e-9)
    # (-1, 3) about (0, 1), a quarter to the left
    np.testing.assert_allclose(bent[12], [-2, 0, 1], atol=1e-6)
    halfway = model.posed(bow, 1.0)[12]
    turned = np.array([-1 - 2, 2 - 1]) / np.sqrt(2) + [0, 1]
    np.testing.assert_allclose(halfway, [*turned, 1], atol=1e-6)
    np.testing.assert_allclose(model.posed(bow, 9.0), bent)
    larger = model.posed(bone_scales={2: 1.5})
    np.testing.assert_allclose(larger[12], [-1.5, 4, 1.5], atol=1e-9)


def test_rotations_take_the_shorter_way_and_steps_jump() -> None:
    times, ends = np.array([0.0, 1.0]), np.array([[0, 0, 0, 1], [0, 0, -0.6, -0.8]])
    smooth = Channel(0, "rotation", times, ends, False).at(0.5)
    np.testing.assert_allclose(smooth, [0, 0, 0.3, 0.9])
    stepped = Channel(0, "rotation", times, ends, True)
    np.testing.assert_allclose(stepped.at(0.99), ends[0])
    np.testing.assert_allclose(stepped.at(1.0), ends[1])


def test_vertex_colours_textures_and_matrices(tmp_path: Path) -> None:
    writer = Writer()
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[0, 1] = (10, 20, 200)
    packed = cv2.imencode(".png", picture)[1].reshape(-1, 1)
    image = writer.views[writer.accessors[writer.add(packed, BYTES, "SCALAR")]["bufferView"]]
    corners = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    attributes = {
        "POSITION": writer.add(corners, FLOATS, "VEC3"),
        "TEXCOORD_0": writer.add([[0.6, 0.1], [0.9, 0.1], [0.9, 0.4]], FLOATS, "VEC2"),
        "COLOR_0": writer.add([[1, 0.25, 1]] * 3, FLOATS, "VEC3"),
    }
    texture = {"baseColorTexture": {"index": 0}, "baseColorFactor": [1, 1, 1, 1]}
    moved = np.eye(4)
    moved[:3, 3] = [5, 6, 7]
    writer.write(
        tmp_path / "one.glb",
        {
            "nodes": [{"mesh": 0, "matrix": moved.T.ravel().tolist()}],
            "meshes": [{"primitives": [{"attributes": attributes, "material": 0}]}],
            "materials": [{"pbrMetallicRoughness": texture}],
            "textures": [{"source": 0}],
            "images": [{"bufferView": writer.views.index(image), "mimeType": "image/png"}],
        },
    )
    model = read_glb(tmp_path / "one.glb")
    expected = np.array([10, 20 * 0.25 ** (1 / 2.2), 200])
    np.testing.assert_allclose(model.colours[0], expected)
    np.testing.assert_allclose(model.posed()[1], [6, 6, 7])
    assert not is_animal(model)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda d: d.update(extensionsRequired=["KHR_draco_mesh_compression"]), "draco"),
        (lambda d: d.update(meshes=[{"primitives": []}]), "no triangles"),
        (lambda d: d["meshes"][0]["primitives"][0]["attributes"].pop("POSITION"), "POSITION"),
        (lambda d: d["accessors"].__setitem__(0, {"sparse": {}}), "sparse"),
        (lambda d: d["skins"][0].update(joints=[1]), "joints"),
        (lambda d: d["animations"][0]["samplers"][0].update(input=0), "one value for each time"),
        (lambda d: d.update(bufferViews=[]), "no valid glTF"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, change: Change, complaint: str) -> None:
    path = tmp_path / "broken.glb"
    writer_description: dict[str, Any] = {}
    write_box(path, writer_description.update)
    length = struct.unpack_from("<I", path.read_bytes(), 12)[0]
    data = path.read_bytes()
    description = json.loads(data[20 : 20 + length])
    change(description)
    text = json.dumps(description).encode()
    path.write_bytes(
        data[:12] + struct.pack("<II", len(text), 0x4E4F534A) + text + data[20 + length :]
    )
    with pytest.raises(GlbError, match=complaint) as caught:
        read_glb(path)
    assert "broken.glb" in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"glTX" + bytes(16), b"glTF" + struct.pack("<I", 1)])
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "odd.glb").write_bytes(data)
    with pytest.raises(GlbError, match=r"odd\.glb: not a binary glTF 2\.0"):
        read_glb(tmp_path / "odd.glb")


def test_cut_off_and_missing_files(box: Path) -> None:
    box.write_bytes(box.read_bytes()[:-30])
    with pytest.raises(GlbError, match="middle of a chunk"):
        read_glb(box)
    with pytest.raises(GlbError, match="cannot be read"):
        read_glb(box.with_name("nothing.glb"))


def test_welding_joins_what_is_in_one_place() -> None:
    points = np.array(RINGS, dtype=np.float64)
    faces = np.array(box_faces(0, 3))
    loose = points[faces.ravel()]
    thin = np.array([[0, 0, 1]])
    surface = welded(loose, loose, np.concatenate([np.arange(84).reshape(-1, 3), thin]))
    assert len(surface.points) == 16
    assert surface.source.tolist() == list(range(28))
    np.testing.assert_allclose(surface.points[surface.triangles], points[faces])


def test_rounded_closes_and_grows_towards_the_sphere() -> None:
    corners = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1.0]])
    faces = [[a, b, c] for a in (0, 1) for b in (2, 3) for c in (4, 5)]
    faces = [f if (f[0] + f[1] + f[2]) % 2 == 0 else f[::-1] for f in faces]
    eight = Surface(corners, corners, np.array(faces), np.arange(8))
    fine = rounded(eight, 2)
    assert fine.triangles.shape == (128, 3)
    assert len(fine.points) == 6 + 12 + 48  # Euler: no crack has opened
    assert np.bincount(fine.source).tolist() == [16] * 8
    _, total = area_and_sum(fine.points, fine.triangles)
    np.testing.assert_allclose(total, 0, atol=1e-9)
    # normals at right angles count as a meant edge: nothing moves there in the first round
    once = rounded(eight, 1)
    np.testing.assert_allclose(once.points, once.rest)
    # in the second they differ less: the surface moves out, but not beyond the sphere
    chords = np.linalg.norm(_middles(once, fine), axis=1)
    reached = np.linalg.norm(fine.points[18:], axis=1)
    assert (reached >= chords - 1e-9).all() and (reached > chords + 0.01).sum() >= 24
    assert reached.max() <= 1.0


def _middles(coarse: Surface, fine: Surface) -> FloatArray:
    """Where the new vertices of fine would lie without rounding."""
    after = np.roll(coarse.triangles, -1, axis=1)
    pairs = np.stack([coarse.triangles, after], axis=2).reshape(-1, 2)
    edges = np.unique(np.sort(pairs, axis=1), axis=0)
    assert len(edges) == len(fine.points) - len(coarse.points)
    return np.asarray(coarse.points[edges].mean(axis=1))


def test_cut_small_keeps_the_faces_flat() -> None:
    surface = box_surface()
    fine = cut_small(surface)
    corners = fine.points[fine.triangles]
    edges = np.linalg.norm(corners - np.roll(corners, -1, axis=1), axis=2)
    assert edges.max() <= 0.05 * 3
    area, total = area_and_sum(fine.points, fine.triangles)
    assert area == pytest.approx(4 * 6 + 2 * 4)
    np.testing.assert_allclose(total, 0, atol=1e-9)
    np.testing.assert_allclose(fine.rest, fine.points)
    lid = fine.source >= 26
    np.testing.assert_allclose(fine.points[fine.triangles[lid]][..., 1], 3)


def test_normals_point_out_of_the_box() -> None:
    surface = box_surface()
    normals = vertex_normals(surface.points, surface.triangles)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)
    outward = surface.points - [0, 1.5, 0]
    assert (np.einsum("vi,vi->v", normals, outward) > 0).all()


def test_coats_differ_but_eyes_stay() -> None:
    assert is_detail("Eyes_Black") and not is_detail("Main_Light")
    rng = np.random.default_rng(0)
    places = rng.uniform(size=(400, 3))
    upward = rng.uniform(-1, 1, 400)
    material = np.repeat([0, 1, 2], [200, 150, 50])
    own = np.repeat([[40.0, 80, 120], [200, 200, 200], [1, 2, 3]], [200, 150, 50], axis=0)
    seen = set()
    for seed in range(40):
        coat = animal_colours(
            own, material, ("Main", "Light", "Eyes"), places, upward, np.random.default_rng(seed)
        )
        assert coat.shape == (400, 3) and coat.min() >= 0 and coat.max() <= 256 * 1.1
        assert coat[350:].max() < 40
        seen.add(tuple(np.rint(np.median(coat[:200], axis=0))))
        thing = thing_colours(own, material, ("A", "B", "Eyes"), np.random.default_rng(seed))
        # OpenCV's change of colour space may round the same colour in two ways
        assert all(np.ptp(thing[material == number], axis=0).max() <= 3 for number in range(3))
    assert len(seen) > 30
    assert FUR.min() >= 0 and FUR.max() <= 255


def test_eyes_are_a_layer_in_front(box: Path) -> None:
    body, eyes = dressed(read_glb(box), np.random.default_rng(0))
    assert body.push_back == 0 > eyes.push_back
    assert len(body.faces) == 10 * 16 and len(eyes.faces) == 18 * 16
    assert np.ptp(body.vertices, axis=0).max() < 1.2


def film(folder: Folder, rng: np.random.Generator, frames: int) -> list[np.ndarray]:
    return draw_cutouts(partial(random_figure, folder), view_from_above, rng, frames=frames)


def test_films_show_one_figure_that_bends(box: Path) -> None:
    folder = read_folder(box.parent, 1.0)
    frames = film(folder, np.random.default_rng(3), 5)
    assert len({frame.shape for frame in frames}) == 1 and len(frames) == 5
    coats = [np.median(frame[frame[..., 3] == 255], axis=0)[:3] for frame in frames]
    assert np.ptp(coats, axis=0).max() < 40  # the same, in other light
    changes = [
        float(np.abs(before[..., 3].astype(int) - after[..., 3]).mean())
        for before, after in zip(frames[:-1], frames[1:], strict=True)
    ]
    whole = float(np.abs(frames[0][..., 3].astype(int) - frames[-1][..., 3]).mean())
    assert 0 < max(changes) < whole  # little by little
    # what is drawn next does not depend on how many frames there were
    one, many = np.random.default_rng(3), np.random.default_rng(3)
    film(folder, one, 1)
    film(folder, many, 5)
    assert one.random() == many.random()


def test_pictures_are_solid_and_decided_by_their_seed(box: Path) -> None:
    folder = read_folder(box.parent, 1.0)

    def picture(seed: int) -> np.ndarray:
        return film(folder, np.random.default_rng(seed), 1)[0]

    for seed in range(4):
        drawn = picture(seed)
        assert 290 <= max(drawn.shape[:2]) <= 424
        alpha = drawn[:, :, 3]
        assert max(alpha[:1].max(), alpha[-1:].max(), alpha[:, :1].max()) < 4  # a margin
        # a bent box has no holes and is one
        assert cv2.connectedComponents((alpha > 0).astype(np.uint8))[0] == 2
        assert cv2.connectedComponents((alpha == 0).astype(np.uint8), connectivity=4)[0] == 2
        assert (alpha == 255).mean() > 0.25
        assert np.array_equal(picture(seed), drawn)
    assert not np.array_equal(picture(5), picture(3))


def test_shares(box: Path) -> None:
    models = read_folder(box.parent, 1.0).models
    folders = [Folder("never", models, 0.0), Folder("always", models, 2.0)]
    rng = np.random.default_rng(0)
    assert all(choose_folder(folders, rng).name == "always" for _ in range(4))


def test_the_command_draws_what_training_takes(box: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "edgetam_label", "cutouts", "models"]
        return subprocess.run(
            [*command, *map(str, arguments), "--out", str(out)], capture_output=True, text=True
        )

    result = run(box.parent, "--count", 2, "--seed", 7)
    assert result.returncode == 0, result.stderr
    names = sorted(path.name for path in out.iterdir())
    assert names == ["figure_000007.png", "figure_000008.png"]
    thing = Pictures((out,)).pick(np.random.default_rng(0))
    assert thing is not None and [frame.shape[2] for frame in thing] == [4]

    for arguments, complaint in (
        ((tmp_path / "out",), "has no .glb files"),
        ((box.parent, "--shares", "1,2"), "--shares 1,2 does not fit: 1 numbers"),
        ((box.parent, "--shares", "many"), "--shares many does not fit"),
    ):
        refused = run(*arguments)
        assert refused.returncode == 2
        assert complaint in refused.stderr and "Traceback" not in refused.stderr


def test_nodes_hand_their_transforms_down() -> None:
    # kept apart from reading: a child listed before its parent
    nodes = Nodes(("a", "b"), (1, -1), np.ones((2, 3)), np.eye(4)[[3, 3]], np.ones((2, 3)), {})
    world = world_transforms(nodes, None, 0.0, {1: 2.0})
    np.testing.assert_allclose(world[0, :3, 3], [3, 3, 3])
