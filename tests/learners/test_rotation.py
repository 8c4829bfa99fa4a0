import pytest
import torch
from torch import nn

from kshot.backbones.conv4 import Conv4
from kshot.episodes import Episodes, Examples, one_hot
from kshot.learners.metric.matching import MatchingNet
from kshot.learners.metric.prototypical import ProtoNet
from kshot.learners.optimization.ridge import R2D2
from kshot.losses import mean_squared_error


@pytest.mark.parametrize("learner", [ProtoNet, R2D2, MatchingNet])
def test_the_loss_is_the_mean_over_all_parts_of_an_episode(learner):
    generator = torch.Generator().manual_seed(0)
    way, shot, parts = 3, 2, 3  # two support and four query examples a class
    inputs = torch.randn(2, way, shot * parts, 4, generator=generator)

    def examples(chosen: list[int]) -> Examples:
        flat = torch.cat([inputs[:, :, part * shot : (part + 1) * shot] for part in chosen], 2)
        targets = one_hot(torch.arange(way).repeat_interleave(flat.shape[2]).expand(2, -1), way)
        return Examples(flat.flatten(1, 2), targets)

    torch.manual_seed(0)
    encoder = nn.Linear(4, 3)
    plain, rotated = learner(encoder), learner(encoder, rotate_support=True)
    others = [[q for q in range(parts) if q != part] for part in range(parts)]
    each = [plain(Episodes(examples([part]), examples(rest))) for part, rest in enumerate(others)]
    episodes = Episodes(examples([0]), examples([1, 2]))
    torch.testing.assert_close(rotated(episodes), torch.stack(each).mean())
    torch.testing.assert_close(rotated.eval()(episodes), each[0])
    # Padding and unlabelled rows are in no part.
    targets = torch.cat([episodes.query.targets, torch.zeros(2, 2, way)], 1)
    padded = torch.cat([episodes.query.inputs, torch.ones(2, 2, 4)], 1)  # pyright: ignore
    mask = torch.ones(2, targets.shape[1], dtype=torch.bool)
    mask[:, -1] = False
    more = episodes._replace(query=Examples(padded, targets, mask))
    torch.testing.assert_close(rotated.train()(more), torch.stack(each).mean())


@pytest.mark.parametrize("learner", [ProtoNet, R2D2, MatchingNet])
def test_a_task_has_the_turns_of_its_own_shots(learner):
    torch.manual_seed(0)
    rotated = learner(nn.Linear(4, 3), rotate_support=True)
    inputs = torch.randn(2, 12, 4)
    targets = one_hot(torch.arange(2).repeat(2, 3), 2)  # three examples of two classes
    query = Examples(inputs[:, 6:], targets)
    both = Examples(inputs[:, :6], targets)
    # The first task has a shot of one, padded; the second of three.
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[0, 2:] = False
    mixed = rotated(Episodes(Examples(both.inputs, targets, mask), query))
    alone = [
        rotated(
            Episodes(
                Examples(inputs[:1, :2], targets[:1, :2]), Examples(inputs[:1, 6:], targets[:1])
            )
        ),
        rotated(
            Episodes(Examples(inputs[1:, :6], targets[1:]), Examples(inputs[1:, 6:], targets[1:]))
        ),
    ]
    torch.testing.assert_close(mixed, torch.stack(alone).mean())


@pytest.mark.parametrize("learner", [ProtoNet, R2D2])
def test_it_needs_shared_embeddings(learner):
    with pytest.raises(ValueError, match="must be 'running', not 'batch'"):
        learner(Conv4((1, 16, 16), hidden=4), rotate_support=True, batch_norm="batch")


def test_it_needs_classes():
    with pytest.raises(ValueError, match="labels that are classes"):
        R2D2(nn.Linear(1, 2), rotate_support=True, loss=mean_squared_error)
