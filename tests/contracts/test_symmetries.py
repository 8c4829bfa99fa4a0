"""What must not matter does not, for every learner of the registry; exceptions are listed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kshot.episodes import Episodes, Examples, map_tensors
from kshot.evaluation.evaluate import episode_scores
from kshot.learner import MetaLearner
from kshot.learners.registry import LEARNERS
from kshot.options import unwrapped

Make = Callable[..., Any]

ROWS = [(name, kind) for name, row in LEARNERS.items() for kind in row.kinds]
NAMES = [name for name, row in LEARNERS.items() if "classification" in row.kinds]
POLICIES = ("running", "batch", "support", "support_and_query")

# Learners whose predictions depend on the order of the support set: memories that read a sequence.
# Or whose minibatches go round it in its order.
MEMORIES = {name for name, row in LEARNERS.items() if row.family == "memory"}
SEQUENTIAL = {"matching_fce", "reptile"} | MEMORIES
# Learners whose columns start apart: the head is a learned initialization, or a random one.
LEARNED_HEADS = {"maml", "maml_plus_plus", "imaml", "fomaml", "anil", "meta_sgd", "reptile"}
LEARNED_HEADS |= {*MEMORIES, "lstm_meta_learner"}
RANDOM_HEADS = {"baseline_plus_plus"}
# Learners whose comparison is a network: before it is trained, labels tell it nothing.
LEARNED_COMPARISON = {"relation"} | MEMORIES
# Learners whose update rule is a network: before it is trained, its steps are small.
LEARNED_RULES = {"lstm_meta_learner"}
# Learners that use unlabelled rows of the support set.
SEMI_SUPERVISED = {"semi_supervised_protonet"}


def policies_of(name: str) -> tuple[str, ...]:
    allowed = unwrapped(LEARNERS[name].constructor).batch_norm_policies  # pyright: ignore
    return tuple(policy for policy in POLICIES if policy in allowed)


def cases(rows: list[tuple[str, str]]) -> list[tuple[str, str, str, str]]:
    """Each row on vectors, and on pictures under each BatchNorm policy."""
    found = []
    for name, kind in rows:
        found.append((name, kind, "mlp", "none"))
        if kind == "classification":
            found += [(name, kind, "conv4_strided", policy) for policy in policies_of(name)]
    return found


EVERY_CASE = pytest.mark.parametrize(("name", "kind", "backbone", "policy"), cases(ROWS))


@pytest.fixture
def drawn(make_learner: Make, make_episodes: Make) -> Make:
    def make(
        name: str, kind: str, backbone: str, policy: str, **sizes: float
    ) -> tuple[MetaLearner, Episodes]:
        learner = make_learner(name, backbone, kind, batch_norm=policy)
        return learner.eval(), make_episodes(backbone, kind, **sizes)

    return make


def predictions(learner: MetaLearner, episodes: Episodes) -> Tensor:
    with torch.no_grad():
        query = episodes.query
        return learner.predict(learner.adapt(episodes.support), query.inputs, query.mask)


def reordered(examples: Examples, order: Tensor) -> Examples:
    return map_tensors(lambda tensor: tensor[:, order], examples)


def same(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first, second, rtol=1e-8, atol=1e-9)


@EVERY_CASE
def test_the_order_of_the_support_set(drawn: Make, name, kind, backbone, policy):
    learner, episodes = drawn(name, kind, backbone, policy)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    other = episodes._replace(support=reordered(episodes.support, order))
    unchanged = same(predictions(learner, other), predictions(learner, episodes))
    assert unchanged == (name not in SEQUENTIAL)


@EVERY_CASE
def test_the_order_of_the_queries(drawn: Make, name, kind, backbone, policy):
    learner, episodes = drawn(name, kind, backbone, policy)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    other = episodes._replace(query=reordered(episodes.query, order))
    assert same(predictions(learner, other), predictions(learner, episodes)[:, order])


@pytest.mark.parametrize("name", NAMES)
def test_permuted_labels_permute_logits(drawn: Make, name: str):
    learner, episodes = drawn(name, "classification", "mlp", "none")
    order = torch.tensor([2, 0, 1])

    def permuted(examples: Examples) -> Examples:
        return examples._replace(targets=examples.targets[..., order])

    other = Episodes(permuted(episodes.support), permuted(episodes.query), episodes.classes)
    follow = same(predictions(learner, other), predictions(learner, episodes)[..., order])
    assert follow == (name not in LEARNED_HEADS | RANDOM_HEADS)


@pytest.mark.parametrize("name", NAMES)
def test_unlabelled_support_rows(drawn: Make, name: str):
    """Without BatchNorm, whose statistics they are part of, they change nothing."""
    learner, episodes = drawn(name, "classification", "mlp", "none")
    inputs, targets, _ = episodes.support
    unlabelled = Examples(
        torch.cat([inputs, inputs[:, :2] * 2 + 1], 1),
        torch.cat([targets, torch.zeros_like(targets[:, :2])], 1),
    )
    other = episodes._replace(support=unlabelled)
    unchanged = same(predictions(learner, other), predictions(learner, episodes))
    assert unchanged == (name not in SEMI_SUPERVISED)


@EVERY_CASE
def test_padding(drawn: Make, padded: Make, name, kind, backbone, policy):
    """A padded episode has the logits of the episode, in real rows and columns."""
    learner, episodes = drawn(name, kind, backbone, policy)
    expected = predictions(learner, episodes)
    logits = predictions(learner, padded(episodes))
    assert logits.isfinite().all()
    assert same(logits[:, : expected.shape[1], : expected.shape[2]], expected)
    loss = learner.meta_loss(episodes)
    torch.testing.assert_close(learner.meta_loss(padded(episodes)), loss)


@EVERY_CASE
def test_tasks_of_different_sizes_share_a_batch(
    drawn: Make, padded: Make, name, kind, backbone, policy
):
    learner, large = drawn(name, kind, backbone, policy)
    way, columns = (2, 1) if kind == "classification" else (3, 0)
    _, small = drawn(name, kind, backbone, policy, way=way, shot=1, query_shot=1, seed=1)
    missing = 6 - way
    batch = map_tensors(
        lambda *tensors: torch.cat(tensors),
        padded(large, rows=(0, 0), columns=0),
        padded(small, rows=(missing, missing), columns=columns),
    )
    logits = predictions(learner, batch)
    assert same(logits[:2], predictions(learner, large))
    assert same(logits[2:, :way, :way], predictions(learner, small))


@pytest.mark.parametrize("name", NAMES)
def test_shuffled_support_labels_give_chance(drawn: Make, name: str):
    """The negative control: what is predicted comes from the labels of the support set."""
    options = {"tasks": 400, "shot": 3, "noise": 0.3}
    learner, episodes = drawn(name, "classification", "flatten", "none", **options)
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(400, 9, generator=generator).argsort(1)
    targets = episodes.support.targets[torch.arange(400)[:, None], order]
    shuffled = episodes._replace(support=episodes.support._replace(targets=targets))

    def accuracy(episodes: Episodes) -> tuple[float, float]:
        scores = episode_scores(predictions(learner, episodes), episodes, learner.loss)
        return scores.mean().item(), scores.std().item() / len(scores) ** 0.5

    mean, error = accuracy(shuffled)
    assert abs(mean - 1 / 3) < 4 * error
    mean, error = accuracy(episodes)
    if name not in LEARNED_COMPARISON | LEARNED_RULES:
        assert mean > 1 / 3 + 10 * error, "with the right labels it does learn"


@pytest.mark.parametrize(
    ("name", "policy"), [(name, policy) for name in NAMES for policy in policies_of(name)]
)
def test_a_transductive_learner_says_so(drawn: Make, name: str, policy: str):
    learner, episodes = drawn(name, "classification", "conv4_strided", policy)
    inputs = episodes.query.inputs
    others = torch.cat([inputs[:, :1], inputs[:, 1:] * 2 + 1], 1)
    changed = episodes._replace(query=episodes.query._replace(inputs=others))
    first, second = (predictions(learner, each)[:, 0] for each in (episodes, changed))
    assert same(first, second) == (not learner.transductive)
    assert learner.batch_norm == policy
    assert learner.transductive == (learner.batch_norm == "batch")


@pytest.mark.parametrize("name", NAMES)
def test_classes_are_scored_apart_where_it_is_said(drawn: Make, name: str):
    """Then the logit of a class is that of a task in which it is alone."""
    learner, episodes = drawn(name, "classification", "mlp", "none")
    inputs, targets, _ = episodes.support
    inputs = torch.cat([inputs, inputs[:, :1] + 1], 1)
    targets = F.pad(targets, (0, 0, 0, 1))  # the last example is of no class that is known
    together = predictions(learner, episodes._replace(support=Examples(inputs, targets)))
    for column in range(3):
        others = targets.sum(-1) - targets[..., column]
        chosen = torch.stack([torch.nonzero(each == 0)[:, 0] for each in others])
        rows = torch.arange(2)[:, None], chosen
        alone = Examples(inputs[rows], targets[rows][..., column : column + 1])
        logits = predictions(learner, episodes._replace(support=alone))
        assert same(logits[..., 0], together[..., column]) == learner.classes_apart
