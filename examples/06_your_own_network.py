"""Optimize a network of your own with an optimizer that was learned.

python examples/06_your_own_network.py
"""

from itertools import islice

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import scale
from torch import nn

import kshot
from kshot.training.problems import classifiers, digits
from kshot.training.truncated import train_unrolled
from kshot.training.unroll import descent

ITERATIONS = 30


def learned_optimizer() -> kshot.LearnedOptimizer:
    """A rule that has seen small networks learn digits; it moves networks of any size."""
    torch.manual_seed(0)
    rule, examples = kshot.LearnedOptimizer(), digits()
    generator = torch.Generator().manual_seed(0)

    def draw(iteration: int):
        return descent(classifiers(2, examples, generator=generator), rule)

    train_unrolled(rule, draw, iterations=ITERATIONS, num_steps=40, truncation=20, outer_lr=0.01)
    return rule


def main() -> tuple[float, float]:
    """Tell tumors apart by another network; its loss before and after forty steps."""
    inputs, labels = load_breast_cancer(return_X_y=True)
    x, y = torch.tensor(scale(inputs), dtype=torch.float32), torch.tensor(labels)
    net = nn.Sequential(nn.Linear(30, 16), nn.Tanh(), nn.Linear(16, 2))

    optimizer = kshot.torch_optimizer(learned_optimizer(), net.named_parameters())
    losses = []
    for _ in range(40):
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    for step, loss in islice(enumerate(losses), 0, None, 13):
        print(f"step {step:2}  loss {loss:.3f}")
    return losses[0], losses[-1]


if __name__ == "__main__":
    main()
