"""Figures of examples, of where a learner looks and what it mistakes show what they are given."""

import numpy as np
import pytest
import torch

from kshot.evaluation.intervals import MeanInterval
from kshot.plots import (
    PicturedPair,
    Regions,
    plot_attention,
    plot_confusion,
    plot_embeddings,
    plot_hardest_pairs,
    plot_learning_curve,
    plot_memory,
    plot_regions,
    plot_ways_and_shots,
)
from kshot.plots.style import draw_picture


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def test_embeddings_keep_distances_in_their_plane_and_ring_mistakes(tmp_path):
    plane = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    turned = plane @ np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0][:2]
    figure = plot_embeddings(turned[:2], [0, 1], turned[2:], [0, 1], [0, 0], ["ann", "bob"])
    figure.savefig(tmp_path / "embeddings.png")
    (axis,) = figure.axes
    shown = {text.get_text(): text.get_position() for text in axis.texts[-2:]}
    assert np.hypot(*np.subtract(shown["1"], shown["2"])) == pytest.approx(4)
    (ring,) = [line for line in axis.lines if line.get_marker() == "o"]
    assert ring.get_color() == "#c8553d"
    assert any("1  ann" in text for text in texts(figure))


def test_embeddings_of_one_number_are_drawn():
    plot_embeddings(np.array([[1.0], [2.0]]), [0, 1], np.array([[3.0]]), [0], [1], "ab")


def test_attention_tells_how_much_goes_to_the_own_class(tmp_path):
    weights = np.array([[0.5, 0.2, 0.3], [0.0, 0.9, 0.1]])
    pictures = {"support": torch.rand(3, 1, 8, 8), "query": torch.rand(2, 1, 8, 8)}
    for more in ({}, pictures):
        figure = plot_attention(weights, [0, 1, 0], [0, 0], **more)
        figure.savefig(tmp_path / "attention.png")
        assert {"80 %", "10 %"} <= set(texts(figure))
        (heat,) = figure.axes[0].images
        np.testing.assert_allclose(heat.get_array(), weights[:, [0, 2, 1]])


def test_a_memory_is_drawn_in_the_order_of_reading():
    weights = np.array([[0.0, 0.0, 0.9, 0.1], [0.8, 0.0, 0.1, 0.1], [0.1, 0.0, 0.2, 0.7]])
    figure = plot_memory(weights, [0, 1, 0], num_queries=1, most_slots=3)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), weights[:, [2, 0, 3]].T)
    assert "queries" in texts(figure) and "3 of 4 slots" in texts(figure)


def test_regions_have_a_panel_a_step(tmp_path):
    left = np.linspace(1, 0, 5)[None].repeat(4, 0)
    grid = np.stack([left, 1 - left], -1)
    shown = Regions(grid, np.array([[0.0, 0.5], [1.0, 0.5]]), [0, 1])
    figure = plot_regions({"before": shown, "1 step": shown}, (0.0, 1.0, 0.0, 1.0))
    figure.savefig(tmp_path / "regions.png")
    assert [axis.get_title() for axis in figure.axes] == ["before", "1 step"]
    assert all(axis.collections for axis in figure.axes), "a line parts the regions"


def test_confusion_marks_what_is_taken_for_what():
    figure = plot_confusion(np.array([[0.75, 0.25], [np.nan, 1.0]]), ["script/ALEPH", "beth"])
    assert {"75", "25", "100", "aleph", "beth"} <= set(texts(figure))


def test_hardest_pairs_show_both_classes(tmp_path):
    pictures = (torch.rand(2, 1, 8, 8), torch.rand(1, 1, 8, 8))
    figure = plot_hardest_pairs([PicturedPair(("a", "b"), pictures, 3, 12)])
    figure.savefig(tmp_path / "pairs.png")
    assert {"a", "b", "25 %\n3 of 12"} <= set(texts(figure))
    drawn = [image.get_array() for axis in figure.axes for image in axis.images]
    assert [strip.shape for strip in drawn] == [(8, 16), (8, 8)]


def test_ways_and_shots_need_two_of_one():
    one, two = MeanInterval(90.0, 1.0, 600), MeanInterval(95.0, 0.5, 600)
    figure = plot_ways_and_shots({(5, 1): one, (5, 5): two})
    assert [axis.get_xlabel() for axis in figure.axes] == ["shot: support examples a class"]
    both = plot_ways_and_shots({(5, 1): one, (5, 5): two, (20, 1): one, (20, 5): two})
    assert len(both.axes) == 2 and {"5-way", "20-way", "1-shot"} <= set(texts(both))
    with pytest.raises(ValueError, match="two ways or two shots"):
        plot_ways_and_shots({(5, 1): one})


def test_a_learning_curve_has_the_interval_of_validation():
    rows = [
        {"iteration": k, "loss": 1.0, "validation accuracy": 0.8, "validation ci95": 0.1}
        for k in (1, 2)
    ]
    band = plot_learning_curve(rows).axes[1].collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([band.min(), band.max()], [0.7, 0.9])


@pytest.mark.parametrize(
    ("picture", "colors"),
    [
        (torch.eye(8)[None], "gray_r"),  # ink is 1
        (1 - torch.eye(8)[None], "gray"),
        (torch.full((1, 8, 8), 0.3), "gray"),  # a photograph
    ],
)
def test_ink_is_dark_and_photographs_are_as_they_are(picture, colors):
    from matplotlib.figure import Figure

    axis = Figure().subplots()
    draw_picture(axis, picture)
    assert axis.images[0].get_cmap().name == colors
