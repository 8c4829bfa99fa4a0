"""Tuning the last block: what it learns, how it is judged, that the encoder stays as it is."""

import numpy as np
import pytest
import torch
from torch import nn

from kshot.encoders import PictureEncoder
from kshot.encoders.last_block import LastBlock
from kshot.episodes import Examples, map_tensors, one_hot
from kshot.heads.choice import fit_head
from kshot.heads.last_block import LastBlockTuning, TunedBlock, fit_last_block
from kshot.learners.baselines.linear_heads import LogisticHead

SIZE, WAY, SHOT = 16, 2, 5


def encoder() -> PictureEncoder:
    """Three layers that know nothing: embeddings of noise, in which little can be told apart."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 6, 5, 2), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU())
    net = nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return PictureEncoder(net, size=SIZE, mean=(0.5,) * 3, std=(0.3,) * 3, device="cpu")


def stripes(n: int, seed: int) -> tuple[list[np.ndarray], torch.Tensor]:
    """Pictures of waves that run across or down, and which of the two."""
    random = np.random.default_rng(seed)
    columns = np.arange(n) % WAY
    phase = random.uniform(0, 6, n)
    waves = np.sin(np.arange(SIZE) * 1.4 + phase[:, None])
    flat = np.where(columns[:, None, None] == 0, waves[:, None, :], waves[:, :, None])
    noisy = 127 + 60 * flat[..., None] + 30 * random.normal(size=(n, SIZE, SIZE, 3))
    return list(noisy.clip(0, 255).astype(np.uint8)), torch.from_numpy(columns)


def as_task(tree):
    return map_tensors(lambda tensor: tensor.unsqueeze(0), tree)


def test_without_steps_it_is_logistic_regression():
    inputs, columns = stripes(WAY * SHOT, 0)
    end = LastBlock(encoder())
    activations = end.activations(inputs)
    tuning = LastBlockTuning(end, num_steps=0).eval()
    usual = LogisticHead(nn.Identity()).eval()
    targets = one_hot(columns, WAY)[None]
    state = tuning.adapt(Examples(as_task(activations), targets))
    embeddings = end.embed(activations)[None]
    expected = usual.predict(usual.adapt(Examples(embeddings, targets)), embeddings)
    torch.testing.assert_close(tuning.predict(state, as_task(activations)), expected)


def test_tuning_tells_apart_what_frozen_embeddings_do_not():
    inputs, columns = stripes(WAY * SHOT, 0)
    asked, right = stripes(40, 1)
    end = LastBlock(encoder())
    support = Examples(as_task(end.activations(inputs)), one_hot(columns, WAY)[None])
    query = as_task(end.activations(asked))
    accuracies = []
    for num_steps in (0, 60):
        tuning = LastBlockTuning(end, num_steps=num_steps, lr=1e-2).eval()
        found = tuning.predict(tuning.adapt(support), query)[0].argmax(-1)
        accuracies.append(float((found == right).double().mean()))
    assert accuracies[1] > accuracies[0] + 0.1 and accuracies[1] > 0.9


def test_tasks_are_tuned_each_for_itself():
    """A batch of tasks, some rows padding, gives what each gives alone."""
    inputs, columns = stripes(12, 0)
    end = LastBlock(encoder())
    activations, targets = end.activations(inputs), one_hot(columns, WAY)
    tuning = LastBlockTuning(end, num_steps=5, lr=1e-2).eval()
    rows = torch.tensor([[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]])
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    batch = Examples({k: v[rows] for k, v in activations.items()}, targets[rows], mask)
    together = tuning.predict(tuning.adapt(batch), batch.inputs)
    for task, kept in enumerate((rows[0], rows[1, :4])):
        support = Examples(*as_task((map_tensors(lambda v: v[kept], activations), targets[kept])))  # noqa: B023
        asked = {name: tensor[task][None] for name, tensor in batch.inputs.items()}
        alone = tuning.predict(tuning.adapt(support), asked)
        torch.testing.assert_close(together[task], alone[0], rtol=1e-4, atol=1e-5)


def test_the_network_it_shares_stays_as_it_is():
    inputs, columns = stripes(WAY * SHOT, 0)
    end = LastBlock(encoder())
    activations = end.activations(inputs)
    before, weights = end.embed(activations), {k: v.clone() for k, v in end.parameters.items()}
    tuning = LastBlockTuning(end, num_steps=5, lr=0.1).eval()
    tuning.adapt(Examples(as_task(activations), one_hot(columns, WAY)[None]))
    torch.testing.assert_close(end.embed(activations), before, rtol=0, atol=0)
    assert all(bool((end.parameters[name] == weight).all()) for name, weight in weights.items())


def test_it_is_judged_beside_the_head_that_it_starts_from():
    inputs, columns = stripes(WAY * SHOT, 0)
    reader = encoder()
    rows = torch.from_numpy(reader.encode(inputs))
    head = fit_last_block(reader, inputs, rows, columns)
    assert [candidate.name for candidate in head.candidates] == ["logistic", "last_block"]
    assert head.chosen is head.candidates[1] and head.chosen.accuracy is not None
    assert head.reason.startswith("as asked")
    logits = head.logits(head.learner.end.activations(inputs[:3]))
    assert logits.shape == (3, WAY)


def test_its_state_goes_through_a_file():
    inputs, columns = stripes(WAY * SHOT, 0)
    end = LastBlock(encoder())
    activations = as_task(end.activations(inputs))
    tuning = LastBlockTuning(end, num_steps=2).eval()
    state = tuning.adapt(Examples(activations, one_hot(columns, WAY)[None]))
    again = TunedBlock.of_tensors(state.as_tensors())
    torch.testing.assert_close(
        tuning.predict(again, activations), tuning.predict(state, activations)
    )


def test_what_it_cannot_learn_from_is_refused():
    with pytest.raises(ValueError, match="cannot learn from embeddings alone"):
        fit_head(torch.eye(4), torch.tensor([0, 0, 1, 1]), "last_block")
    tuning = LastBlockTuning(LastBlock(encoder())).eval()
    with pytest.raises(ValueError, match="reads activations"):
        tuning.adapt(Examples(torch.zeros(1, 2, 6), torch.eye(2)[None]))
