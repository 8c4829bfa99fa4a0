"""SNAIL against the whole sequence, read step by step for every query anew."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.backbones.conv4 import Conv4
from kshot.backbones.mlp import MLP
from kshot.episodes import Episodes, Examples, concatenate, map_tensors
from kshot.learners.memory.snail import SNAIL, Attention, DenseBlock


def learner_on(mlp: nn.Module, **options: int) -> SNAIL:
    torch.manual_seed(0)
    return SNAIL(mlp, 3, **{"max_shot": 3, "filters": 4, **options}).double()  # pyright: ignore


def predictions(learner: SNAIL, episodes: Episodes) -> Tensor:
    return learner.predict(learner.adapt(episodes.support), episodes.query.inputs)


def last_logits(learner: SNAIL, steps: list[Tensor]) -> Tensor:
    """The logits at the end of a sequence by the paper's formulas, one step and block at a time."""
    for block in learner.blocks:
        features = []
        for i, x in enumerate(steps):
            if isinstance(block, Attention):
                scores = [block.query(x) @ block.key(other) for other in steps[: i + 1]]
                scale = math.sqrt(block.key.out_features)
                weights = torch.stack([score / scale for score in scores]).softmax(0)
                found = zip(weights, steps[: i + 1], strict=True)
                features.append(sum(w * block.value(other) for w, other in found))
            else:
                assert isinstance(block, DenseBlock)
                past = steps[i - block.dilation] if i >= block.dilation else torch.zeros_like(x)
                f, g = (block.now(x) + block.before(past)).chunk(2)
                features.append(f.tanh() * g.sigmoid())
        steps = [torch.cat(pair) for pair in zip(steps, features, strict=True)]
    return learner.head(steps[-1])


def test_every_query_is_the_last_step_of_the_whole_sequence(mlp: MLP, vectors: Episodes):
    learner = learner_on(mlp)
    logits = predictions(learner, vectors)
    support, query, _ = vectors
    for task in range(3):
        embeddings = learner.embedding(mlp(support.inputs[task]))
        examples = zip(embeddings, support.targets[task], strict=True)
        sequence = [torch.cat(example) for example in examples]
        for row, x in enumerate(learner.embedding(mlp(query.inputs[task]))):
            step = torch.cat([x, torch.zeros(3, dtype=torch.float64)])
            torch.testing.assert_close(logits[task, row], last_logits(learner, [*sequence, step]))
    taken = logits.log_softmax(-1)[query.targets > 0]
    torch.testing.assert_close(learner(vectors), -taken.mean())


def test_a_dense_block_is_a_dilated_convolution_of_two_steps():
    torch.manual_seed(0)
    block = DenseBlock(5, 4, 3).double()
    convolution = nn.Conv1d(5, 6, 2, dilation=4).double()
    convolution.weight.data = torch.stack([block.before.weight, block.now.weight], -1).detach()
    convolution.bias = block.now.bias
    x = torch.randn(2, 9, 5, dtype=torch.float64)
    f, g = convolution(F.pad(x, (0, 0, 4, 0)).mT).mT.chunk(2, -1)
    features, _ = block(x, torch.ones(2, 9, dtype=torch.bool))
    torch.testing.assert_close(features, f.tanh() * g.sigmoid())


def test_the_network_has_the_sizes_of_the_paper():
    learner = SNAIL(Conv4((1, 28, 28)), 5, max_shot=1)
    parts = learner.embedding, learner.blocks, learner.head
    assert sum(p.numel() for part in parts for p in part.parameters()) == 3_101_566
    dilations = {
        (way, shot): [
            b.dilation
            for b in SNAIL(MLP((4,)), way, max_shot=shot).blocks
            if isinstance(b, DenseBlock)
        ]
        for way, shot in ((5, 1), (5, 5), (20, 5))
    }
    assert dilations[5, 1] == 2 * [2, 4, 8]
    assert dilations[5, 5] == 2 * [2, 4, 8, 16, 32]
    assert dilations[20, 5] == 2 * [2, 4, 8, 16, 32, 64, 128]


def test_no_step_depends_on_a_later_one(mlp: MLP, vectors: Episodes):
    learner = learner_on(mlp)
    inputs, targets, _ = vectors.support
    changed = Examples(torch.cat([inputs[:, :5], inputs[:, 5:] + 1], 1), targets)  # pyright: ignore
    before, after = (learner.adapt(each).summary.blocks for each in (vectors.support, changed))
    early, late = (map_tensors(lambda x, s=s: x[:, s], before) for s in (slice(5), slice(5, None)))
    torch.testing.assert_close(early, map_tensors(lambda x: x[:, :5], after))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(late, map_tensors(lambda x: x[:, 5:], after))


@pytest.mark.parametrize("place", [0, 2, 7])
def test_rows_that_are_no_examples_have_no_place_in_the_sequence(
    place: int, mlp: MLP, vectors: Episodes
):
    learner = learner_on(mlp)
    (inputs, targets, _), query, _ = vectors
    assert isinstance(inputs, Tensor)
    noise, labels = torch.full_like(inputs[:, :2], 5.0), torch.full_like(targets[:, :2], torch.nan)
    rows = [
        torch.cat([x[:, :place], y, x[:, place:]], 1)
        for x, y in ((inputs, noise), (targets, labels))
    ]
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[:, place : place + 2] = False
    padded = vectors._replace(support=Examples(*rows, mask))
    torch.testing.assert_close(predictions(learner, padded), predictions(learner, vectors))
    for parameter_grads in zip(
        torch.autograd.grad(learner(padded), list(learner.parameters())),
        torch.autograd.grad(learner(vectors), list(learner.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(*parameter_grads)
    # What is masked in one task alone shortens the sequence of that task.
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[1, :4] = False
    shorter = predictions(learner, vectors._replace(support=Examples(inputs, targets, mask)))
    alone = Episodes(
        *(
            map_tensors(lambda x: x[1:2], e)
            for e in (Examples(inputs[:, 4:], targets[:, 4:]), query)
        )
    )
    torch.testing.assert_close(shorter[1:2], predictions(learner, alone))
    torch.testing.assert_close(shorter[[0, 2]], predictions(learner, vectors)[[0, 2]])


def test_attention_looks_for_what_resembles_before_it_has_learned():
    torch.manual_seed(0)
    attention, x = Attention(16, 64, 8), torch.randn(1, 5, 16)
    alike = x + 0.1 * torch.randn(1, 5, 16)
    real, itself = torch.ones(1, 5, dtype=torch.bool), torch.zeros(1, 5, 64)
    weights = attention.weights(alike, itself, attention.key(x), real)
    assert weights[0].argmax(-1).tolist() == [0, 1, 2, 3, 4]


def test_queries_do_not_see_one_another(mlp: MLP, vectors: Episodes):
    learner = learner_on(mlp)
    state, inputs = learner.adapt(vectors.support), vectors.query.inputs
    assert isinstance(inputs, Tensor)
    one_by_one = [learner.predict(state, row) for row in inputs.split(1, 1)]
    torch.testing.assert_close(learner.predict(state, inputs), torch.cat(one_by_one, 1))


def test_examples_observed_one_by_one_are_the_support_set(mlp: MLP, vectors: Episodes):
    learner = learner_on(mlp)
    support, query, _ = vectors
    inputs, targets = support.inputs, support.targets
    assert isinstance(inputs, Tensor)
    for first in (0, 4):
        state = learner.adapt(Examples(inputs[:, :first], targets[:, :first]))
        before = map_tensors(torch.clone, state)
        online = learner.observe(state, Examples(inputs[:, first:], targets[:, first:]))
        torch.testing.assert_close(online, learner.adapt(support))
        torch.testing.assert_close(state, before)
    more = learner.adapt(concatenate(support, query))
    torch.testing.assert_close(learner.observe(online, query), more)


def test_observed_examples_without_a_label_change_nothing(mlp: MLP, vectors: Episodes):
    learner = learner_on(mlp)
    state = learner.adapt(vectors.support)
    mask = torch.tensor([[True, False, True, False]] * 3)
    some = learner.observe(state, vectors.query._replace(mask=mask))
    labelled = Examples(vectors.query.inputs[:, ::2], vectors.query.targets[:, ::2])
    torch.testing.assert_close(
        learner.predict(some, vectors.query.inputs),
        learner.predict(learner.observe(state, labelled), vectors.query.inputs),
    )


def test_an_empty_support_set_gives_finite_logits(mlp: MLP, vectors: Episodes):
    inputs, targets, _ = vectors.support
    nothing = Examples(inputs[:, :0], targets[:, :0])  # pyright: ignore
    logits = predictions(learner_on(mlp), vectors._replace(support=nothing))
    masked = vectors.support._replace(mask=torch.zeros(3, 7, dtype=torch.bool))
    assert logits.isfinite().all()
    torch.testing.assert_close(
        predictions(learner_on(mlp), vectors._replace(support=masked)), logits
    )


def test_a_smaller_way_takes_the_first_columns_and_a_larger_one_is_refused(
    mlp: MLP, vectors: Episodes
):
    learner = learner_on(mlp)
    two = vectors.support.targets[..., :2]  # without the third class
    logits = learner.predict(
        learner.adapt(vectors.support._replace(targets=two)), vectors.query.inputs
    )
    wide = learner.adapt(vectors.support._replace(targets=F.pad(two, (0, 1))))
    torch.testing.assert_close(logits, learner.predict(wide, vectors.query.inputs)[..., :2])
    four = vectors.support._replace(targets=F.pad(vectors.support.targets, (0, 1)))
    with pytest.raises(ValueError, match="max_way=4"):
        learner.adapt(four)


def test_it_learns_which_class_a_query_is_of():
    """Labels are drawn anew in every episode, so that only the support set tells them."""
    torch.manual_seed(0)
    learner = SNAIL(MLP((4,), widths=(16,)), 3, max_shot=2, filters=16)
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)

    def drawn(tasks: int) -> Episodes:
        centers = torch.randn(tasks, 3, 4, generator=generator)

        def examples(shot: int) -> Examples:
            rows = torch.rand(tasks, 3 * shot, generator=generator).argsort(1) % 3
            noise = 0.1 * torch.randn(tasks, 3 * shot, 4, generator=generator)
            return Examples(centers.take_along_dim(rows[..., None], 1) + noise, torch.eye(3)[rows])

        return Episodes(examples(2), examples(2))

    for _ in range(150):
        optimizer.zero_grad()
        learner(drawn(32)).backward()
        optimizer.step()
    test = drawn(200)
    correct = predictions(learner, test).argmax(-1) == test.query.targets.argmax(-1)
    assert correct.float().mean() > 0.9


def test_it_computes_under_autocast(mlp: MLP, vectors: Episodes):
    learner, episodes = learner_on(mlp).float(), vectors.to("cpu", torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(learner(episodes), learner(episodes))
        half = predictions(learner, episodes)
    torch.testing.assert_close(half.float(), predictions(learner, episodes), rtol=0.05, atol=0.05)
