"""Twenty classes, five pictures each: fit and predict as with scikit-learn.

python examples/04_twenty_classes.py
"""

import numpy as np
import torch

import kshot

TRAINING = kshot.TrainingConfig(
    iterations=100, outer_lr=4e-3, validate_every=100, validation_episodes=0, device="cpu"
)


def main() -> float:
    """Meta-train on other scripts, then learn twenty new letters; the share named right."""
    torch.manual_seed(0)
    glyphs = kshot.glyphs()
    learner = kshot.ProtoNet(kshot.Conv4(glyphs.input_shape, hidden=32))
    episode = kshot.EpisodeConfig(way=30, shot=1, query_shot=5)
    kshot.meta_train(learner, glyphs.sampler("train", episode, 0), TRAINING, quiet=True)

    letters = glyphs.dataset("test").select(range(20))
    names = np.array(letters.class_names)
    few = np.stack([rows[:5] for rows in letters.rows])
    others = np.stack([rows[5:15] for rows in letters.rows])

    classifier = kshot.FewShotClassifier(learner)
    classifier.fit(letters.examples[few.ravel()], names.repeat(5))
    score = classifier.score(letters.examples[others.ravel()], names.repeat(10))
    print(f"named right: {score:.1%} of {others.size} pictures of 20 classes")
    return score


if __name__ == "__main__":
    main()
