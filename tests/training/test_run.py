"""A run's folder gives back what was trained."""

import torch

from kshot.recipe import parse_run
from kshot.training.run import build_run, create_folder, load_run, train_run


def test_a_run_keeps_all_digits(tmp_path):
    """Weights of a training in float64 are loaded as such."""
    config = parse_run(
        {
            "data": {"name": "sinusoid"},
            "backbone": {"name": "mlp", "widths": [4]},
            "learner": {"name": "maml"},
            "episodes": {"shot": 2, "query_shot": 2},
            "training": {"iterations": 2, "precision": "float64", "device": "cpu"},
        },
        where="test",
    )
    run = build_run(config)
    create_folder(tmp_path, run, "", None)
    trained = train_run(run, tmp_path, quiet=True).learner.state_dict()
    loaded = load_run(str(tmp_path), "cpu").learner.state_dict()
    torch.testing.assert_close(loaded, trained, rtol=0, atol=0)
