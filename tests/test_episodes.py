import pytest
import tensorflow as tf

from mlutils import Episode

EPISODE = Episode(*(tf.fill((1, n, 1), float(n)) for n in (1, 2, 3, 4)))


def test_an_element_and_its_episode_are_the_same_tensors():
    (support_x, support_y, query_x), query_y = EPISODE.element
    assert (support_x, support_y, query_x, query_y) == tuple(EPISODE)
    back = Episode.from_element(EPISODE.element)
    assert all(a is b for a, b in zip(back, EPISODE, strict=True))
    assert Episode.from_element(EPISODE) is EPISODE


@pytest.mark.parametrize("wrong", [tuple(EPISODE), None, 3, ((1, 2), 3), {"a": 1, "b": 2}])
def test_anything_else_raises(wrong):
    with pytest.raises(ValueError, match="An element of a dataset of episodes is an Episode or"):
        Episode.from_element(wrong)
