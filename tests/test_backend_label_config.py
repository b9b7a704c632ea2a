from __future__ import annotations

import pytest
from backend_bodies import IMAGE_CONFIG, LABELS, VIDEO_CONFIG, image_config

from edgetam_label.backend.faults import ConfigProblem, RequestError
from edgetam_label.backend.label_config import OUTPUT_TAGS, LabelConfig, LabelConfigCache


def test_tags_are_found_by_tag_and_to_name_and_media_by_value() -> None:
    config = LabelConfig.parse(IMAGE_CONFIG)
    image = config.first("image")
    assert image is not None and image.name == "picture"
    assert image.media({"photo": "/data/upload/1/a.png", "picture": "wrong"}) == (
        "/data/upload/1/a.png"
    )
    assert config.output_for("picture", "Dog").name == "brush"
    assert config.problems == ()
    assert config.color("Dog") == "#0000FF"


@pytest.mark.parametrize("tag", [t for t in OUTPUT_TAGS if t.endswith("Labels")])
def test_every_output_tag_serves_every_smart_tool(tag: str) -> None:
    config = LabelConfig.parse(image_config(tag))
    assert config.fatal is None
    assert config.output_for("i", "Cat").tag == tag
    assert {c.smart for c in config.controls_of("i", ("KeyPointLabels",))} == {True}


def test_two_images_are_kept_apart() -> None:
    config = LabelConfig.parse(
        f"""<View><Image name="a" value="$left"/><Image name="b" value="$right"/>
        <BrushLabels name="ba" toName="a">{LABELS}</BrushLabels>
        <PolygonLabels name="pb" toName="b">{LABELS}</PolygonLabels>
        <KeyPointLabels name="k" toName="a,b" smart="true">{LABELS}</KeyPointLabels></View>"""
    )
    assert config.output_for("a", "Cat").name == "ba"
    assert config.output_for("b", "Cat").name == "pb"
    assert config.object("b").media({"left": "L", "right": "R"}) == "R"  # type: ignore[union-attr]


def test_a_list_of_images_is_indexed() -> None:
    config = LabelConfig.parse('<View><Image name="i" valueList="$pages"/></View>')
    image = config.first("image")
    assert image is not None
    assert image.media({"pages": ["/a", "/b"]}, 1) == "/b"
    with pytest.raises(RequestError, match="lists 2 images.*no number 5"):
        image.media({"pages": ["/a", "/b"]}, 5)


def test_the_output_can_be_chosen_where_there_are_several() -> None:
    config = LabelConfig.parse(
        f"""<View><Image name="i" value="$p"/>
        <BrushLabels name="b" toName="i">{LABELS}</BrushLabels>
        <PolygonLabels name="p" toName="i">{LABELS}</PolygonLabels></View>"""
    )
    assert config.output_for("i", "Cat").tag == "BrushLabels"
    assert config.output_for("i", "Cat", "PolygonLabels").tag == "PolygonLabels"


@pytest.mark.parametrize(
    ("xml", "sentence"),
    [
        ("<View/>", "no <Image> or <Video> tag"),
        ('<View><Image name="i" value="$p"/></View>', '<BrushLabels name="brush" toName="i">'),
        (
            f'<View><Image name="i" value="$p"/><BrushLabels name="b" toName="i">{LABELS}'
            "</BrushLabels></View>",
            'add <KeyPointLabels name="click" toName="i" smart="true">',
        ),
        (
            '<View><Video name="v" value="$p" frameRate="5"/></View>',
            'add <VideoRectangle name="box" toName="v"/>',
        ),
    ],
)
def test_a_config_that_cannot_work_names_the_tag_to_add(xml: str, sentence: str) -> None:
    fatal = LabelConfig.parse(xml).fatal
    assert fatal is not None and sentence in fatal


def test_hints_name_smart_allow_empty_and_frame_rate() -> None:
    plain = LabelConfig.parse(IMAGE_CONFIG.replace(' smart="true"', ""))
    assert plain.fatal is None
    assert 'smart="true" to <KeyPointLabels name="click">' in plain.problems[0].sentence
    video = LabelConfig.parse(
        VIDEO_CONFIG.replace(' allowEmpty="true"', "").replace(' frameRate="25"', "")
    )
    assert video.fatal is None
    sentences = " ".join(p.sentence for p in video.problems)
    assert 'allowEmpty="true" to <Labels name="labels">' in sentences and "frameRate" in sentences


def test_an_unknown_label_is_named() -> None:
    with pytest.raises(
        ConfigProblem, match='add <Label value="Fox"/> to <BrushLabels name="brush">'
    ):
        LabelConfig.parse(IMAGE_CONFIG).output_for("picture", "Fox")


@pytest.mark.parametrize(
    "xml",
    [
        "<View>",
        "",
        '<!DOCTYPE x [<!ENTITY a "b">]><View>&a;</View>',
        '<!DOCTYPE x SYSTEM "file:///etc/passwd"><View/>',
        "\x00",
        "<" * 2_000_000,
    ],
)
def test_broken_and_hostile_xml_is_refused_in_a_sentence(xml: str) -> None:
    with pytest.raises(RequestError, match="label config"):
        LabelConfig.parse(xml)


@pytest.mark.parametrize(
    ("rate", "data", "expected"),
    [("30", {}, 30.0), ("$fps", {"fps": 29.97}, 29.97), ("$fps", {}, 24.0), ("x", {}, 24.0),
     ("-5", {}, 24.0), ("nan", {}, 24.0)],
)  # fmt: skip
def test_frame_rate(rate: str, data: dict[str, float], expected: float) -> None:
    config = LabelConfig.parse(f'<View><Video name="v" value="$m" frameRate="{rate}"/></View>')
    assert config.first("video").frames_per_second(data) == expected  # type: ignore[union-attr]


def test_a_config_is_parsed_once() -> None:
    cache = LabelConfigCache(size=2)
    first = cache.get(IMAGE_CONFIG)
    assert cache.get(IMAGE_CONFIG) is first
    cache.get(VIDEO_CONFIG)
    cache.get(IMAGE_CONFIG.replace("Cat", "Cow"))
    assert cache.get(IMAGE_CONFIG) is not first
