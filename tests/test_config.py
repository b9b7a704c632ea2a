from __future__ import annotations

import pytest

from edgetam_label.config import ModelConfig, available_configs
from edgetam_label.errors import ConfigError


def text_of(name: str) -> str:
    from importlib.resources import files

    return (files("edgetam_label.configs") / f"{name}.toml").read_text(encoding="utf-8")


def test_shipped_configs_load():
    assert {"edgetam", "tiny"} <= set(available_configs())
    for name in available_configs():
        assert ModelConfig.load(name).name == name


def test_a_path_is_accepted(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text_of("tiny").replace("image_size = 128", "image_size = 192"))
    config = ModelConfig.load(path)
    assert (config.name, config.image_size, config.feature_size) == ("mine", 192, 12)
    assert config.sha256 != ModelConfig.load("tiny").sha256


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("image_size = 128", "image_size = 100"), "image_size = 100 must be a multiple of 32"),
        (("image_size = 128", "image_size = '128'"), "image_size = '128' must be a positive whole"),
        (("image_size = 128", "imagesize = 128"), "unknown key 'imagesize'"),
        (("d_model = 32\n", ""), "lacks the key 'd_model'"),
        (("memory_dim = 16", "memory_dim = 12"), "memory_dim = 12 must be a divisor"),
        (("num_latents_2d = 16", "num_latents_2d = 9"), "num_latents_2d = 9 must be a square"),
        (("trunk_dims = [8, 16, 24, 32]", "trunk_dims = [8, 16]"), "must be four numbers"),
        (('"bfloat16"', '"int8"'), "memory_dtype = 'int8' must be one of"),
        (("image_size = 128", "image_size = true"), "image_size = True must be"),
        (("image_size = 128", "image_size = 128\nflow_prompt = 1"), "must be true or false"),
        (("image_size", "[image_size"), "not valid TOML"),
    ],
)
def test_a_bad_config_names_the_key(change, expected):
    with pytest.raises(ConfigError, match="Model config broken") as error:
        ModelConfig.parse(text_of("tiny").replace(*change, 1), name="broken")
    assert expected in str(error.value)


def test_a_new_key_at_its_default_leaves_sessions_valid():
    # the hash that sessions recorded before `flow_prompt` existed
    assert ModelConfig.load("edgetam").sha256.startswith("f7ff64eb6171a50d")
    plain, told = text_of("tiny"), text_of("tiny") + "flow_prompt = false\n"
    asked = ModelConfig.parse(text_of("tiny") + "flow_prompt = true\n", name="tiny")
    assert ModelConfig.parse(plain, name="tiny") == ModelConfig.parse(told, name="tiny")
    assert asked.flow_prompt and asked.sha256 != ModelConfig.load("tiny").sha256


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match="edgetam, .*tiny"):
        ModelConfig.load("edgetam_xl")
    with pytest.raises(ConfigError, match="cannot be read"):
        ModelConfig.load("no/such.toml")
