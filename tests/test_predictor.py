from __future__ import annotations

import numpy as np
import pytest
from tiny_video import HEIGHT, WIDTH, tiny_images, tiny_model

from edgetam_label.errors import MediaError, PromptError
from edgetam_label.masks import RLE
from edgetam_label.predictor import ImagePredictor
from edgetam_label.prompts import Box, Click, Prompt

CLICK = Prompt(1, clicks=(Click(20, 30),))
BOX = Prompt(2, box=Box(8, 20, 32, 44))


@pytest.fixture(scope="module")
def predictor():
    return ImagePredictor(tiny_model())


@pytest.fixture(scope="module")
def embedding(predictor):
    return predictor.embed(tiny_images(1)[0])


def test_one_click_is_ambiguous_and_a_box_is_not(predictor, embedding):
    click, box = predictor.predict_batch(embedding, [CLICK, BOX])
    assert click.masks.shape == (3, HEIGHT, WIDTH) and box.masks.shape == (1, HEIGHT, WIDTH)
    assert click.iou.shape == (3,) and click.low_res_logits.shape == (3, 32, 32)
    assert np.array_equal(click.best, click.masks[click.iou.argmax()])
    assert predictor.predict(embedding, CLICK, multimask=False).masks.shape[0] == 1
    assert np.abs(click.low_res_logits).max() <= 32


def test_a_batch_equals_single_calls(predictor, embedding):
    """Prompts of different lengths must not see each other's padding."""
    both = Prompt(3, box=BOX.box, clicks=(Click(20, 30), Click(80, 5, positive=False)))
    batch = predictor.predict_batch(embedding, [CLICK, BOX, both])
    for prompt, answer in zip([CLICK, BOX, both], batch, strict=True):
        alone = predictor.predict(embedding, prompt)
        assert np.array_equal(alone.low_res_logits, answer.low_res_logits)


def test_earlier_logits_refine(predictor, embedding):
    first = predictor.predict(embedding, CLICK)
    more = Prompt(1, clicks=(*CLICK.clicks, Click(80, 5, positive=False)))
    refined = predictor.predict(
        embedding, more, low_res_logits=first.low_res_logits[first.best_index]
    )
    fresh = predictor.predict(embedding, more)
    assert refined.masks.shape[0] == 1
    assert not np.array_equal(refined.low_res_logits, fresh.low_res_logits)


def test_a_mask_prompt_differs_from_none(predictor, embedding):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[10:40, 20:60] = True
    one = predictor.predict(embedding, Prompt(1, mask=RLE.encode(mask)))
    other = predictor.predict(embedding, Prompt(1, mask=RLE.encode(~mask)))
    assert not np.array_equal(one.low_res_logits, other.low_res_logits)


def test_clean_up_on_request(predictor, embedding):
    dirty = predictor.predict(embedding, CLICK)
    clean = predictor.predict(embedding, CLICK, max_hole_area=10**6, max_speck_area=0)
    assert (clean.masks >= dirty.masks).all()


def test_refusals(predictor, embedding):
    with pytest.raises(PromptError, match="Click 500,3 .* outside the frame of 96x64"):
        predictor.predict(embedding, Prompt(1, clicks=(Click(500, 3),)))
    with pytest.raises(PromptError, match=r"need.*\(32, 32\)"):
        predictor.predict(embedding, CLICK, low_res_logits=np.zeros((8, 8), np.float32))
    with pytest.raises(PromptError, match="1 prompts came with 2"):
        logits = np.zeros((32, 32), np.float32)
        predictor.predict_batch(embedding, [CLICK], low_res_logits=[logits, logits])
    with pytest.raises(MediaError, match=r"shape \(4, 4\), float64"):
        predictor.embed(np.zeros((4, 4)))
