"""A tiny MakeHuman: a box of two bones in a box-shaped garment, read, fitted, bent and drawn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageSequence

from edgetam_label.errors import UsageError
from edgetam_label.training.figures.arrays import FloatArray, IntArray
from edgetam_label.training.figures.clothes_colours import cloth_colours, parts
from edgetam_label.training.figures.cutout import draw_cutouts, write_png
from edgetam_label.training.figures.makehuman_files import (
    AssetError,
    read_garment,
    read_mesh,
    read_rig,
    read_target,
)
from edgetam_label.training.figures.makehuman_people import fit, garment_transforms
from edgetam_label.training.figures.makehuman_poses import (
    Skeleton,
    _between,
    move,
    turn,
    turn_between,
    vertex_transforms,
)
from edgetam_label.training.figures.mesh_pictures import (
    MARGIN,
    Layer,
    View,
    draw_moments,
    largest_piece,
    subdivided,
    trimmed,
    without_pinholes,
)

# a column of two boxes, x and z in -1..1, y from 0 over 2 to 4: rings of four vertices
RING = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
BODY = [(x, y, z) for y in (0, 2, 4) for x, z in RING]
SIDES = [
    (4 * ring + corner, 4 * ring + 4 + corner, 4 * ring + 4 + after, 4 * ring + after)
    for ring in (0, 1)
    for corner, after in ((0, 1), (1, 2), (2, 3), (3, 0))
]
FACES = [*SIDES, (0, 1, 2, 3), (8, 11, 10, 9)]
FRONT = View(0.0, 0.0, 0.0, 50.0, (0.0, 0.0, 1.0), 0.5)


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    """box.obj with a helper triangle, up.target, rig.mhskel, rig.mhw, shirt.mhclo, shirt.obj."""

    def corners(face: tuple[int, ...]) -> str:
        return "f " + " ".join(f"{number + 1}/7" for number in face)

    places = [f"v {x} {y} {z}" for x, y, z in BODY]
    box = [*places, "g body", *map(corners, FACES), "g helper-x", "f 1/1 2/2 3/3"]
    (tmp_path / "box.obj").write_text("\n".join(box))
    (tmp_path / "up.target").write_text("# moves the top\n8 0 1 0\n9 .5 1 0\n")
    bones = {
        "arm": {"head": "middle", "tail": "top", "parent": "root"},
        "root": {"head": "bottom", "tail": "middle", "parent": None},
    }
    joints = {"bottom": [0, 1, 2, 3], "middle": [4, 5, 6, 7], "top": [8, 9, 10, 11]}
    (tmp_path / "rig.mhskel").write_text(json.dumps({"bones": bones, "joints": joints}))
    shares = {"arm": [[n, 1.0] for n in (8, 9, 10, 11)], "root": [[n, 2.0] for n in range(4)]}
    (tmp_path / "rig.mhw").write_text(json.dumps({"weights": shares}))
    (tmp_path / "shirt.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 1 1 1\nf 1 2 3\nf 2 4 3\n")
    (tmp_path / "shirt.mhclo").write_text(
        "# a shirt\nname shirt\nobj_file shirt.obj\nx_scale 0 1 1.0\ny_scale 0 8 4.0\n"
        "z_scale 0 3 2.0\nverts 0\nmaterial shirt.mhmat\n8\n4 5 6 0.5 0.5 0\n"
        "9 10 11 0.5 0.25 0.25 0.5 0.25 -1\n8 9 10 0 0 1 0 0 0\ndelete_verts\n4 8 - 10\n11\n"
    )
    return tmp_path


def test_mesh_has_groups_and_pads_triangles(assets: Path) -> None:
    mesh = read_mesh(assets / "box.obj")
    assert mesh.vertices.shape == (12, 3)
    assert mesh.faces_of("body").tolist() == [list(face) for face in FACES]
    assert mesh.faces_of("helper-x").tolist() == [[0, 1, 2, 2]]
    assert mesh.faces_of("nothing").shape == (0, 4)


def test_target(assets: Path) -> None:
    numbers, moves = read_target(assets / "up.target")
    assert numbers.tolist() == [8, 9]
    assert moves.tolist() == [[0, 1, 0], [0.5, 1, 0]]


def test_garment_is_read(assets: Path) -> None:
    shirt = read_garment(assets / "shirt.mhclo")
    assert shirt.anchors.tolist() == [[8, 8, 8], [4, 5, 6], [9, 10, 11], [8, 9, 10]]
    assert shirt.weights[0].tolist() == [1, 0, 0]
    assert sorted(shirt.hidden.tolist()) == [4, 8, 9, 10, 11]


def test_garment_fits_and_grows_with_the_body(assets: Path) -> None:
    base = read_mesh(assets / "box.obj").vertices
    shirt = read_garment(assets / "shirt.mhclo")
    middle = 0.5 * base[9] + 0.25 * base[10] + 0.25 * base[11]
    fitted = fit(shirt, base)
    np.testing.assert_allclose(fitted[0], base[8])
    np.testing.assert_allclose(fitted[1], [0, 2, -1])
    # x_scale: 2 long, 1 in the file: offsets double along x and stay along y and z
    np.testing.assert_allclose(fitted[2], middle + [1.0, 0.25, -1.0])
    np.testing.assert_allclose(fit(shirt, base * 3), fitted * 3)


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("shirt.mhclo", ("9 10 11 0.5 0.25 0.25 0.5 0.25 -1\n", ""), "ties 3 vertices"),
        ("shirt.mhclo", ("z_scale 0 3 2.0\n", ""), "no z_scale"),
        ("shirt.mhclo", ("0.5 0.25 -1", "0.5"), "7 words"),
        ("shirt.obj", ("f 2 4 3", "f 2 9 3"), "shirt.obj has no faces, or faces of"),
        ("shirt.obj", ("f 2 4 3", "f 2 4"), "a face of 2 corners"),
    ],
)
def test_broken_garments_say_what_is_wrong(
    assets: Path, name: str, change: tuple[str, str], complaint: str
) -> None:
    text = (assets / name).read_text()
    assert change[0] in text
    (assets / name).write_text(text.replace(*change))
    with pytest.raises(AssetError, match=complaint):
        read_garment(assets / "shirt.mhclo")


def test_rig_puts_parents_first_and_weights_sum_to_one(assets: Path) -> None:
    rig = read_rig(assets / "rig.mhskel", assets / "rig.mhw", 12)
    assert rig.names == ("root", "arm")
    assert rig.parents == (-1, 0)
    np.testing.assert_allclose(rig.weights.sum(axis=1), 1.0)
    # the middle ring is nobody's: it goes with the root
    assert rig.weights[4].tolist() == [1.0, 0.0]


def test_rig_of_orphans_is_refused(assets: Path) -> None:
    text = (assets / "rig.mhskel").read_text().replace("null", '"nobody"')
    (assets / "rig.mhskel").write_text(text)
    with pytest.raises(AssetError, match="no rig"):
        read_rig(assets / "rig.mhskel", assets / "rig.mhw", 12)


def test_bones_turn_about_their_heads_and_carry_their_children(assets: Path) -> None:
    base = read_mesh(assets / "box.obj").vertices
    skeleton = Skeleton.in_body(read_rig(assets / "rig.mhskel", assets / "rig.mhw", 12), base)
    quarter = turn(np.array([0.0, 0.0, 1.0]), 90)
    posed = move(vertex_transforms(skeleton, {"arm": quarter}), base)
    np.testing.assert_allclose(posed[:8], base[:8], atol=1e-9)
    # (-1, 4) about (0, 2), a quarter to the left
    np.testing.assert_allclose(posed[8], [-2, 1, -1], atol=1e-9)
    both = move(vertex_transforms(skeleton, {"root": quarter, "arm": quarter}), base)
    np.testing.assert_allclose(both[8], [-1, -2, -1], atol=1e-9)
    shirt = read_garment(assets / "shirt.mhclo")
    transforms = garment_transforms(shirt, vertex_transforms(skeleton, {"arm": quarter}))
    np.testing.assert_allclose(move(transforms, fit(shirt, base))[0], posed[8], atol=1e-4)


@pytest.mark.parametrize("end", [[0.3, -1, 0.2], [0, 1, 0], [0, -1, 0]])
def test_turn_between(end: list[float]) -> None:
    start, goal = np.array([0.0, 2.0, 0.0]), np.array(end, dtype=np.float64)
    rotation = turn_between(start, goal)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(rotation @ start / 2, goal / np.linalg.norm(goal), atol=1e-6)


def test_a_pose_on_the_way_to_another() -> None:
    start, end = turn(np.array([1.0, 2, 3]), 40), turn(np.array([0.0, 1, 0]), -70)
    np.testing.assert_allclose(_between(start, end, 1.0), end, atol=1e-9)
    middle = _between(start, end, 0.5)
    np.testing.assert_allclose(middle @ middle.T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(start.T @ middle, middle.T @ end, atol=1e-9)  # half way


def test_films_keep_place_and_scale() -> None:
    front = box_layer(0, 200)

    def figure(_: np.random.Generator, moment: float) -> list[Layer]:
        return [Layer(front.vertices + [2.0 * moment, 0, 0], front.faces, front.colours)]

    still = View(0.0, 0.0, 0.0, 50.0, (0.0, 0.0, 1.0), 0.5)
    rng = np.random.default_rng(0)
    frames = draw_moments([(figure(rng, at), still) for at in (0.0, 0.5, 1.0)], 104, rng)
    assert len({frame.shape for frame in frames}) == 1
    lefts = [int(np.flatnonzero(frame[..., 3].any(axis=0))[0]) for frame in frames]
    # four units are 100 pixels high: one unit to the right is 25 of them
    assert np.diff(lefts) == pytest.approx([25, 25], abs=1)


def test_subdivided_keeps_the_surface() -> None:
    vertices, faces = subdivided(np.array(BODY, dtype=np.float64), np.array(FACES))
    assert faces.shape == (4 * len(FACES), 4)
    # Euler: a closed surface stays closed
    assert len(vertices) == 12 + 20 + len(FACES)
    corners = vertices[faces]
    flat = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]) / 2
    assert np.linalg.norm(flat, axis=1).sum() == pytest.approx(8 * 4 + 2 * 4)
    np.testing.assert_allclose(flat.sum(axis=0), 0, atol=1e-9)


def box_layer(shift: float, colour: float, push_back: float = 0.0) -> Layer:
    vertices = np.array(BODY, dtype=np.float64) + [0.0, 0.0, shift]
    return Layer(vertices, np.array(FACES), np.full((len(FACES), 3), colour), False, push_back)


def draw(layers: list[Layer], view: View, longer_side: int, rng: np.random.Generator) -> np.ndarray:
    return draw_moments([(layers, view)], longer_side, rng)[0]


def test_picture_is_solid_and_as_large_as_asked() -> None:
    picture = draw([box_layer(0, 200)], FRONT, 104, np.random.default_rng(0))
    assert picture.shape[0] == pytest.approx(104, abs=2)
    assert picture.shape[1] == pytest.approx(50 + 2 * MARGIN, abs=2)
    assert (picture[MARGIN + 1 : -MARGIN - 1, MARGIN + 1 : -MARGIN - 1, 3] == 255).all()
    assert (picture[0, :, 3] == 0).all() and (picture[:, 0, 3] == 0).all()
    # lit from the camera, the front is as bright as shading lets it be
    assert 200 < picture[52, 27, 0] <= 220


def test_near_hides_far_unless_pushed_back() -> None:
    def middle(push_back: float) -> int:
        layers = [box_layer(0.5, 40, push_back), box_layer(0, 200)]
        picture = draw(layers, FRONT, 104, np.random.default_rng(0))
        return int(picture[picture.shape[0] // 2, picture.shape[1] // 2, 0])

    assert middle(0.0) < 60
    assert middle(1.0) > 150


def test_sheets_are_drawn_from_behind_darker_and_only_where_two_sided() -> None:
    layer = box_layer(0, 200)
    rng = np.random.default_rng(0)
    front = layer.faces[2:3]
    toward = draw([Layer(layer.vertices, front, layer.colours[:1])], FRONT, 104, rng)
    behind = Layer(layer.vertices, front[:, ::-1], layer.colours[:1], two_sided=True)
    inside = draw([behind], FRONT, 104, rng)
    assert inside.shape == toward.shape
    assert (inside[..., 3] == toward[..., 3]).mean() > 0.98
    assert toward[52, 52, 0] > inside[52, 52, 0] + 20
    with pytest.raises(ValueError, match="faces the camera"):
        draw([Layer(layer.vertices, front[:, ::-1], layer.colours[:1])], FRONT, 104, rng)


def test_largest_piece_and_pinholes() -> None:
    image = np.zeros((60, 60, 4), np.uint8)
    image[10:50, 10:50] = (10, 200, 30, 255)
    image[20:22, 20:22] = 0
    image[30:40, 30:40] = 0
    filled = without_pinholes(image)
    assert (filled[20:22, 20:22] == (10, 200, 30, 255)).all()
    assert (filled[30:40, 30:40, 3] == 0).all()
    image[55:58, 55:58] = 255
    piece = largest_piece(image)
    assert piece is not None and piece.shape == image.shape
    assert not piece[55:58, 55:58].any()
    lower = np.roll(piece, 5, axis=0)
    both = trimmed([piece, lower])
    assert {one.shape[:2] for one in both} == {(45 + 2 * MARGIN, 40 + 2 * MARGIN)}
    assert np.array_equal(both[0][:-5], both[1][5:])
    image[52:60, :] = 255
    assert largest_piece(image) is None


def two_quads() -> tuple[FloatArray, IntArray]:
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=np.float64)
    far = square + [0.0, 5.0, 0.0]
    touching = square + [1.0, 0.0, 0.0]
    return np.concatenate([square, far, touching]), np.arange(12).reshape(3, 4)


def test_parts_are_joined_by_place_and_by_mirror_image() -> None:
    vertices, faces = two_quads()
    part = parts(vertices, faces)
    assert part[0] == part[2] != part[1]
    mirrored = np.concatenate(
        [vertices[:4] + [2.0, 0, 0], (vertices[:4] + [2.0, 0, 0]) * [-1, 1, 1]]
    )
    assert len(set(parts(mirrored, np.arange(8).reshape(2, 4)).tolist())) == 1


def test_one_piece_suit_is_coloured_as_top_and_bottom() -> None:
    heights = np.arange(41.0)
    vertices = np.stack([np.tile([0.0, 1.0], 41), np.repeat(heights, 2), np.zeros(82)], axis=1)
    first = 2 * np.arange(40)
    faces = np.stack([first, first + 1, first + 3, first + 2], axis=1)
    differing = 0
    for seed in range(20):
        colours = cloth_colours(vertices, faces, 20.0, np.random.default_rng(seed))
        assert colours.shape == (40, 3)
        differing += not np.allclose(colours[0], colours[-1])
    assert differing >= 18


def test_cutouts_are_as_large_as_asked_and_in_one_piece() -> None:
    pictures = [
        draw_cutouts(
            lambda _, at: [box_layer(at, 200)], lambda _: FRONT, np.random.default_rng(seed), 0.5
        )[0]
        for seed in range(6)
    ]
    assert all(max(picture.shape[:2]) <= 421 for picture in pictures)
    whole = [picture for picture in pictures if picture.shape[0] > 1.5 * picture.shape[1]]
    assert 0 < len(whole) < 6  # the others show the upper part only
    loose = [box_layer(0, 200), Layer(
        np.array(BODY, dtype=np.float64) + [9.0, 0.0, 0.0], np.array(FACES),
        np.full((len(FACES), 3), 90.0),
    )]  # fmt: skip
    with pytest.raises(UsageError, match="fell into pieces"):
        draw_cutouts(lambda *_: loose, lambda _: FRONT, np.random.default_rng(0))


def test_the_command_names_what_is_missing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-P", "-m", "edgetam_label", "cutouts", "people"]
    result = subprocess.run(
        [*command, str(tmp_path), str(tmp_path), "--out", str(out)], capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "base.obj is missing" in result.stderr and "Traceback" not in result.stderr
    assert not out.exists()


@pytest.mark.parametrize("frames", [1, 3])
def test_png_is_written_whole(tmp_path: Path, frames: int) -> None:
    images = [np.full((5, 7, 4), (30, 60, 90 + n, 255), np.uint8) for n in range(frames)]
    write_png(tmp_path / "a.png", images)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    first = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert first is not None and np.array_equal(first, images[0])
    with Image.open(tmp_path / "a.png") as opened:
        read = [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(opened)]
    assert np.array_equal(np.stack(read)[..., [2, 1, 0, 3]], np.stack(images))
