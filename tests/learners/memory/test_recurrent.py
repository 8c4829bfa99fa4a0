"""The recurrent learner is a network of PyTorch over examples and late labels."""

import torch
from torch import nn

from kshot.backbones.heads import Flatten
from kshot.episodes import Episodes
from kshot.learners.memory.ntm import NTM
from kshot.learners.memory.recurrent import RecurrentLearner


def sequence(episodes: Episodes) -> torch.Tensor:
    """The paper's sequence: each example beside the label before it."""
    inputs, targets, _ = episodes.support
    late = torch.cat([torch.zeros_like(targets[:, :1]), targets[:, :-1]], 1)
    return torch.cat([inputs, late], -1)


def test_a_gru_over_the_whole_sequence_in_one_call(encoder: Flatten, episodes: Episodes):
    learner = RecurrentLearner(encoder, 3, cell="gru", hidden=5).double()
    network = nn.GRU(7, 5, batch_first=True).double()
    cell = learner.cell
    with torch.no_grad():
        network.weight_ih_l0.copy_(torch.cat([cell.inputs.weight, cell.feedback.weight], 1))
        network.bias_ih_l0.copy_(cell.inputs.bias)
        network.weight_hh_l0.copy_(cell.recurrent.weight)  # pyright: ignore
        network.bias_hh_l0.copy_(cell.recurrent.bias)  # pyright: ignore
    outputs, last = network(sequence(episodes))
    torch.testing.assert_close(learner.predict_in_turn(episodes.support), learner.outputs(outputs))
    torch.testing.assert_close(learner.adapt(episodes.support).summary.memory, last[0])


def test_the_turing_machine_reads_the_same_sequence(encoder: Flatten, episodes: Episodes):
    learner = NTM(encoder, 3, hidden=5, slots=6, width=3).double()
    state, outputs = learner.machine.initial_state(2), []
    for step in sequence(episodes).unbind(1):
        output, state = learner.machine.step(
            state, learner.machine.project(step[:, :4]), step[:, 4:]
        )
        outputs.append(output)
    torch.testing.assert_close(learner.predict_in_turn(episodes.support), torch.stack(outputs, 1))
