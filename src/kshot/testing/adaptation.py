"""Checks of `adapt` and `predict`: what the user of an adapted learner relies on."""

import copy
import pickle
from typing import Any

import torch
from torch import Tensor

from kshot.episodes import Episodes, concatenate, leaves, map_tensors
from kshot.learner import MetaLearner
from kshot.testing.comparison import (
    double_copy,
    expect,
    expect_same,
    one_task,
    predict_query,
    predictions_of,
    seeded,
)
from kshot.testing.tasks import twice_the_way, without_last_class

__all__ = [
    "check_no_grad",
    "check_online",
    "check_other_sizes",
    "check_predictions",
    "check_purity",
    "check_saving",
    "check_state",
    "check_task_independence",
]


def check_predictions(learner: MetaLearner, episodes: Episodes) -> None:
    """Predictions are finite numbers (tasks, m, way), and the meta-loss is one finite number."""
    learner, episodes = double_copy(learner, episodes)
    for training in (True, False):
        predictions = predictions_of(learner.train(training), episodes)
        expected, found = tuple(episodes.query.targets.shape), tuple(predictions.shape)
        expect(found == expected, f"predict must give (tasks, m, way) = {expected}, not {found}")
        expect(bool(predictions.isfinite().all()), "predictions must be finite in every column")
        loss = learner.meta_loss(episodes)
        expect(
            loss.dim() == 0 and bool(loss.isfinite()),
            f"meta_loss must give one finite number, not {loss}",
        )


def check_state(learner: MetaLearner, episodes: Episodes) -> None:
    """A state is a tree of tensors (tasks, ...): it can be sliced, stacked and used in part."""
    learner, episodes = double_copy(learner, episodes)
    state = learner.eval().adapt(episodes.support)
    expect(
        isinstance(state, Tensor | tuple | list | dict),
        f"a state must be a (named) tuple or dictionary of tensors, not {type(state).__name__}",
    )
    tasks = len(episodes.query.targets)
    shapes = [tuple(tensor.shape) for tensor in leaves(state)]
    expect(
        all(shape[:1] == (tasks,) for shape in shapes),
        f"every tensor of a state must have a leading dimension of {tasks} tasks; shapes: {shapes}",
    )
    predictions = predict_query(learner, state, episodes.query)
    parts = [one_task(state, task) for task in range(tasks)]
    expect_same(
        predict_query(learner, map_tensors(lambda *each: torch.cat(each), *parts), episodes.query),
        predictions,
        "a state taken apart and stacked again must predict the same",
    )
    for task, part in enumerate(parts):
        expect_same(
            predict_query(learner, part, one_task(episodes.query, task)),
            one_task(predictions, task),
            "the slice of a state must predict as its task does within the batch",
        )


def check_purity(learner: MetaLearner, episodes: Episodes) -> None:
    """`adapt` and `predict` change nothing, and give the same for the same, whatever came between.

    In training mode "the same" is meant from the same seed of the global generator.
    """
    learner, episodes = double_copy(learner, episodes)
    _check_purity(learner.train(), episodes, seed=0)
    _check_purity(learner.eval(), episodes, seed=None)


def _check_purity(learner: MetaLearner, episodes: Episodes, seed: int | None) -> None:
    support, query, _ = episodes
    other = support._replace(targets=support.targets.flip(1))
    before, given = _snapshot(learner), map_tensors(torch.clone, (support, query))
    state = seeded(seed, lambda: learner.adapt(support))
    kept = map_tensors(torch.clone, state)
    first = seeded(seed, lambda: predict_query(learner, state, query))
    seeded(seed, lambda: predictions_of(learner, Episodes(other, query)))
    second = seeded(seed, lambda: predict_query(learner, state, query))
    expect_same(
        second,
        first,
        "predict must depend on its state alone, but predicts otherwise once the learner has "
        "adapted to other tasks: keep what is learned in the state, not on the learner",
    )
    expect_same(state, kept, "predict must not change the state")
    again = seeded(seed, lambda: learner.adapt(support))
    expect_same(again, kept, "adapt must give the same state for the same support set")
    expect_same((support, query), given, "adapt and predict must not change their inputs")
    after = _snapshot(learner)
    changed = sorted(
        name
        for name in before.keys() | after.keys()
        if not (name in before and name in after and _equal(before[name], after[name]))
    )
    expect(
        not changed,
        f"adapt and predict must not change the learner, but changed {', '.join(changed)} (in "
        f"{'training' if learner.training else 'evaluation'} mode); only meta_loss may write "
        "buffers, in training mode",
    )


def check_task_independence(learner: MetaLearner, episodes: Episodes) -> None:
    """In evaluation mode a batch of tasks gives what the tasks give one by one."""
    learner, episodes = double_copy(learner, episodes)
    together = predictions_of(learner.eval(), episodes)
    for task in range(len(together)):
        expect_same(
            predictions_of(learner, one_task(episodes, task)),
            one_task(together, task),
            "a batch of tasks must give what its tasks give one by one, but a task's predictions "
            "depend on the other tasks (do they share statistics?)",
        )


def check_no_grad(learner: MetaLearner, episodes: Episodes) -> None:
    """Adaptation works under `torch.no_grad`, gives the same, and keeps no graph."""
    learner, episodes = double_copy(learner, episodes)
    expected = predictions_of(learner.eval(), episodes)
    with torch.no_grad():
        state = learner.adapt(episodes.support)
        predictions = predict_query(learner, state, episodes.query)
    expect_same(predictions, expected, "adapt and predict must give the same under no_grad")
    expect(
        not any(tensor.requires_grad for tensor in (*leaves(state), predictions)),
        "under no_grad no graph may be kept, but the state or the predictions require grad",
    )


def check_saving(learner: MetaLearner, episodes: Episodes) -> None:
    """A learner comes back from its state_dict, and from pickle, predicting the same."""
    learner, episodes = double_copy(learner, episodes)
    expected = predictions_of(learner.eval(), episodes)
    loaded = copy.deepcopy(learner)
    for tensor in (*loaded.parameters(), *loaded.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data + 1
    loaded.load_state_dict(learner.state_dict())
    expect_same(
        predictions_of(loaded, episodes),
        expected,
        "the state_dict must hold all parameters and buffers that predictions depend on",
    )
    try:
        unpickled = pickle.loads(pickle.dumps(learner))
    except Exception as error:
        raise AssertionError(f"Other processes need to pickle a learner: {error}") from error
    expect_same(predictions_of(unpickled, episodes), expected, "pickle must keep the learner")


def check_online(learner: MetaLearner, episodes: Episodes) -> None:
    """Online learners: adapting to some examples and observing the others is adapting to all.

    Unless BatchNorm has statistics of the examples that it sees together.
    """
    if not learner.online or learner.batch_norm not in ("none", "running"):
        return
    learner, episodes = double_copy(learner, episodes)
    support, query, _ = episodes
    expected = predictions_of(learner.eval(), episodes)
    for count in range(support.targets.shape[1]):
        first, rest = (
            map_tensors(lambda tensor, rows=rows: tensor[:, rows], support)
            for rows in (slice(count), slice(count, None))
        )
        state = learner.adapt(first)
        kept = map_tensors(torch.clone, state)
        observed = learner.observe(state, rest)  # pyright: ignore[reportCallIssue]
        expect_same(state, kept, "observe must not change the state it is given")
        expect_same(
            predict_query(learner, observed, query),
            expected,
            f"adapting to {count} examples and observing the rest must be adapting to all of them",
        )


def check_other_sizes(learner: MetaLearner, episodes: Episodes) -> None:
    """Episodes of other way and shot than before work, or raise a ValueError that says why."""
    learner, episodes = double_copy(learner, episodes)
    support, query, _ = episodes
    others = {"twice the shot": (concatenate(support, support), query)}
    if learner.loss.kind == "classification":
        others["twice the way"] = (twice_the_way(support), twice_the_way(query))
        others["one class less"] = (without_last_class(support), without_last_class(query))
    for name, (support, query) in others.items():
        tasks, m, way = query.targets.shape
        try:
            predictions = predictions_of(learner.eval(), Episodes(support, query))
        except ValueError as error:
            expect(
                str(way) in str(error),
                f"the error for {name} must say that {way} classes are the reason, but is: {error}",
            )
            continue
        expect(
            predictions.shape == (tasks, m, way) and bool(predictions.isfinite().all()),
            f"tasks of {name} must get finite predictions of shape {(tasks, m, way)}, but got "
            f"{tuple(predictions.shape)}",
        )


_OF_MODULES = frozenset(vars(torch.nn.Module())) - {"training"}


def _snapshot(learner: MetaLearner) -> dict[str, Any]:
    """All that a pure method could change: tensors by value, other attributes by identity."""
    found: dict[str, Any] = {}
    for path, module in learner.named_modules():
        plain = {key: value for key, value in vars(module).items() if key not in _OF_MODULES}
        tensors = {**module._parameters, **module._buffers}
        grads = {f"{k}.grad": p.grad for k, p in module._parameters.items() if p is not None}
        for key, value in {**plain, **tensors, **grads}.items():
            name = f"{path}.{key}" if path else key
            found[name] = value.clone() if isinstance(value, Tensor) else value
    return found


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    return first is second
