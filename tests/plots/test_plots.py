import numpy as np
import torch

from kshot.plots import (
    plot_adaptation,
    plot_descents,
    plot_episode,
    plot_gates,
    plot_learning_curve,
    plot_steps,
)


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def test_an_episode_names_classes_and_frames_mistakes(tmp_path):
    support, query = torch.rand(2, 1, 1, 8, 8), torch.rand(3, 1, 8, 8)
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    figure = plot_episode(support, query, probabilities, [0, 1, 1], ["script/ALPHA", "b"])
    figure.savefig(tmp_path / "episode.png")
    shown = texts(figure)
    assert "1  alpha" in shown and "2  b" in shown
    assert "90 %" in shown and "80 %" in shown
    assert "class 1: 70 %" in shown, "the wrong one says what it was taken for"


def test_an_episode_without_predictions_shows_only_pictures():
    figure = plot_episode(torch.rand(2, 1, 3, 8, 8), torch.rand(2, 3, 8, 8), None, [0, 1], "ab")
    assert not [text for text in texts(figure) if "%" in text]


def test_a_learning_curve_marks_the_best_validation():
    history = [
        {"iteration": 10, "loss": 2.0, "validation accuracy": 0.5},
        {"iteration": 20, "loss": 1.0, "validation accuracy": 0.75},
        {"iteration": 30, "loss": 0.9, "validation accuracy": 0.7},
    ]
    assert "best: 0.75" in texts(plot_learning_curve(history))
    assert len(plot_learning_curve([{"iteration": 1, "loss": 1.0}]).axes) == 1


def test_an_adaptation_has_a_panel_for_each_learner():
    x = np.linspace(-5, 5, 20)
    curves = {"maml": {0: 0 * x, 1: np.sin(x)}, "pre-training": {0: 0 * x, 10: x}}
    figure = plot_adaptation(x, np.sin(x), (x[:5], np.sin(x[:5])), curves)
    assert [axis.get_title() for axis in figure.axes] == ["maml", "pre-training"]
    assert {"before", "after 1 step", "after 10 steps"} <= {
        line.get_label() for axis in figure.axes for line in axis.get_lines()
    }


def test_descents_have_a_panel_a_problem_and_a_line_an_optimizer():
    curves = {"bowl": {"a": np.array([[4.0, 1.0], [2.0, 2.0], [3.0, 3.0]]), "b": np.ones((1, 2))}}
    (axis,) = plot_descents({**curves}, until=1).axes
    assert [list(line.get_data()[1]) for line in axis.lines[:2]] == [[3.0, 2.0], [1.0, 1.0]]
    assert axis.get_title() == "bowl" and axis.get_yscale() == "log"


def test_a_descent_that_diverges_leaves_the_picture():
    curves = {"bowl": {"wild": np.array([[3.0, 1e30]]), "calm": np.array([[3.0, 0.1]])}}
    (axis,) = plot_descents(curves, until=1).axes
    assert axis.get_ylim()[1] < 10


def test_descents_have_at_most_three_panels_in_a_row():
    figure = plot_descents({str(n): {"a": np.ones((1, 2))} for n in range(4)}, until=1)
    places = [axis.get_subplotspec() for axis in figure.axes]
    assert [(place.rowspan.start, place.colspan.start) for place in places if place] == [
        *((0, 0), (0, 1), (0, 2)),
        (1, 0),
    ]


def test_gates_are_drawn_by_the_median_and_the_middle_of_coordinates():
    gates = np.stack([np.linspace(0.9, 1, 11), np.linspace(0, 0.1, 11)], -1)[:, None]
    figure = plot_gates({"head": gates.repeat(3, 1)})
    forget, enter = figure.axes
    assert list(forget.lines[0].get_data()[0]) == [1, 2, 3]
    for axis, middle in ((forget, 0.95), (enter, 0.05)):
        np.testing.assert_allclose(axis.lines[0].get_data()[1], middle)
        band = axis.collections[0].get_paths()[0].vertices[:, 1]
        np.testing.assert_allclose([band.min(), band.max()], [middle - 0.04, middle + 0.04])


def test_steps_are_drawn_by_the_median_and_the_range_of_seeds():
    figure = plot_steps({"maml": {2: [1.0, 4.0, 2.0], 1: [8.0]}, "b": {1: [3.0]}}, metric="error")
    (axis,) = figure.axes
    assert [list(line.get_data()[1]) for line in axis.lines] == [[8.0, 2.0], [3.0]]
    assert list(axis.lines[0].get_data()[0]) == [1, 2]
    band = axis.collections[0].get_paths()[0].vertices
    assert set(band[band[:, 0] == 2][:, 1]) == {1.0, 4.0}
    assert {"maml", "b", "error"} <= set(texts(figure))
