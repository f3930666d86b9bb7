from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from calipers.errors import BadInput
from calipers.report.facts import facts_of
from calipers.report.gallery import gallery
from calipers.report.pictures import heat, pictures, strength
from tests.report.factory import make_run


def _pixels(uri: str) -> np.ndarray:
    kind, code = uri.split(",", 1)
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(code))))


@pytest.mark.parametrize("shape", [(5, 7), (1, 5, 7), (3, 5, 7)])
def test_images_come_back_pixel_by_pixel(shape: tuple[int, ...]) -> None:
    levels = np.random.default_rng(0).integers(0, 256, shape)
    clean = levels / 255.0
    before, after, change = pictures(clean, 1 - clean, (0.0, 1.0))
    expected = levels if levels.ndim == 2 else levels[0] if shape[0] == 1 else levels.transpose(1, 2, 0)
    np.testing.assert_array_equal(_pixels(before.png), expected)
    np.testing.assert_array_equal(_pixels(after.png), 255 - expected)
    assert _pixels(change.png).shape == expected.shape


def test_the_difference_uses_the_full_range_around_grey() -> None:
    clean, moved = np.full((1, 1, 3), 0.5), np.array([[[0.4, 0.5, 0.6]]])
    change = pictures(clean, moved, (0.0, 1.0))[2]
    assert _pixels(change.png).tolist() == [[0, 128, 255]]
    assert change.caption == "difference, ±0.1"


def test_no_change_and_a_constant_input_are_drawn_without_dividing_by_zero() -> None:
    for x in (np.zeros((1, 2, 2)), np.zeros(3)):
        assert len(pictures(x, x, None)) == 3


def test_features_become_bars_and_many_features_the_most_changed() -> None:
    clean = np.zeros(200)
    moved = clean.copy()
    moved[[3, 150]] = [1.0, -2.0]
    before, after, _ = pictures(clean, moved, None)
    assert "64 most changed of 200" in before.caption
    assert after.png == ""
    assert after.bars.count("M") == 64
    assert "v-20.00" in after.bars  # 1 of a span of 3, in a box 60 high
    assert "v40.00" in after.bars


def test_other_shapes_become_bars() -> None:
    assert all(shown.bars and not shown.png for shown in pictures(np.ones((2, 4, 4)), np.zeros((2, 4, 4)), None))


def test_witnesses_hang_nearest_first_but_not_those_wrong_from_the_start() -> None:
    run = make_run([0.0, 0.1, 0.05, 0.1], [0.0, 0.3, 0.06, np.inf], index=[10, 11, 12, 13])
    shown, found = gallery(run, facts_of(run))
    assert [it.index for it in shown] == [12, 11]
    assert [it.distance for it in shown] == ["0.06", "0.3"]
    assert found == 2


def test_more_than_the_page_can_hold_are_thinned_evenly_with_both_ends() -> None:
    upper = np.random.default_rng(0).permutation(np.arange(1, 31) / 100)
    run = make_run(upper / 2, upper, shape=(3, 160, 160))
    shown, found = gallery(run, facts_of(run))
    distances = [float(it.distance) for it in shown]
    assert found == 30
    assert 3 <= len(shown) < 30
    assert (distances[0], distances[-1]) == (0.01, 0.3)
    assert np.diff(distances).max() <= 2.1 * 0.29 / len(shown)
    assert sum(picture.weight for it in shown for picture in it.pictures) < 4_000_000


def test_a_stray_witness_is_refused() -> None:
    run = make_run()
    run.witnesses["index"][0] = 999
    with pytest.raises(BadInput, match="example 999"):
        facts_of(run)
    short = make_run()
    short.witnesses["clean"] = short.witnesses["clean"][1:]
    with pytest.raises(BadInput, match="one row per witness"):
        facts_of(short)


def test_strength_is_black_where_nothing_is_and_white_at_the_peak() -> None:
    assert _pixels(strength("s", np.array([[[0.0, -2.0, 1.0]]])).png).tolist() == [[0, 255, 128]]
    assert strength("s", np.zeros(100)).bars.count("M") == 64


def test_heat_goes_from_blue_through_pale_to_orange() -> None:
    left, middle, right = _pixels(heat("h", np.array([[1.0, 2.0, 3.0]])).png)[0].tolist()
    assert left == [0, 114, 178]
    assert middle == [240, 240, 236]
    assert right == [213, 94, 0]
    assert _pixels(heat("h", np.ones((2, 2))).png).tolist() == [[[0, 114, 178]] * 2] * 2
