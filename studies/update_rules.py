"""`python -m studies update_rules [omniglot|caltech101]`: a learned update rule beside fixed ones.

The LSTM meta-learner, MAML, Meta-SGD and fine-tuning after pre-training on one network, taught by
one to five examples a class (recipes/DATA/update_rules.toml). Each has a number of iterations of
its own, which takes a quarter of an hour to an hour on one thread; pre-training needs less. A run
that is there already is not trained again. All are scored on the same episodes of unseen classes.
"""

from pathlib import Path

from studies.compared import scored, store, trained

__all__ = ["main"]

DATA = ("omniglot", "caltech101")

# Scored as they are trained, transductively, and inductively, as the other two are anyway.
BOTH = "--evaluation.batch-norm batch support_and_query"

# The LSTM meta-learner as its authors train it: clipped, an episode a step. Meta-SGD's first rates
# are those of its recipe on Omniglot.
COMMON = {
    "lstm_meta_learner": "--learner.num-inner-steps 5 --training.outer-lr 1e-3 "
    "--training.clip-norm 0.25",
    "maml": "--learner.num-inner-steps 5 --learner.inner-lr 0.1 --training.outer-lr 3e-3 "
    f"--training.meta-batch-size 8 {BOTH}",
    "meta_sgd": "--learner.num-inner-steps 1 --learner.lowest-rate 0.05 "
    f"--learner.highest-rate 0.2 --training.outer-lr 3e-3 --training.meta-batch-size 8 {BOTH}",
    "fine_tuning": "--learner.tune head --learner.inner-lr 0.5 --learner.num-test-steps 100 "
    "--training.outer-lr 1e-3 --training.no-compile",
}
PRE_TRAINING = {
    "omniglot": "--episodes.way 60 --episodes.shot 1 --episodes.query-shot 5",
    "caltech101": "--episodes.way 40 --episodes.shot 1 --episodes.query-shot 5",
}
ITERATIONS = {
    "omniglot": {"lstm_meta_learner": 12000, "maml": 6000, "meta_sgd": 15000, "fine_tuning": 3000},
    "caltech101": {"lstm_meta_learner": 6000, "maml": 1000, "meta_sgd": 3000, "fine_tuning": 1000},
}


def main(arguments: list[str]) -> None:
    """Train what is not trained yet, score all, compare and store."""
    for data in arguments or DATA:
        runs = [trained(training_command(data, learner)) for learner in COMMON]
        store(Path(f"results/{data}/update_rules.json"), {run: scored(run) for run in runs})


def training_command(data: str, learner: str) -> list[str]:
    """The arguments of `kshot train` for a learner on some data."""
    iterations = ITERATIONS[data][learner]
    return [
        *(f"recipes/{data}/update_rules.toml", "--learner", learner, *COMMON[learner].split()),
        *(PRE_TRAINING[data].split() if learner == "fine_tuning" else ()),
        *("--training.iterations", str(iterations)),
        *("--training.validate-every", str(iterations // 5)),
        *("--out", f"runs/{data}_update_rules_{learner}"),
    ]
