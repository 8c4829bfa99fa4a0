"""Face unlock: a verifier of people that training never saw, enrolled by three portraits each.

python examples/03_face_unlock.py    (needs the ORL faces: KSHOT_DATA or a folder, see orl_faces)
"""

import numpy as np
import torch

import kshot
from kshot.settings.verification import collect_trials, error_rates

TRAINING = kshot.TrainingConfig(
    iterations=150, outer_lr=4e-3, validate_every=150, validation_episodes=0, device="cpu"
)


def portraits(data: kshot.LabelledDataset, person: int) -> np.ndarray:
    """The ten portraits of a person, (10, 1, size, size)."""
    return data.examples[data.rows[person]]


def main() -> dict[str, float]:
    """Train on 25 people, choose a threshold on 5, unlock for 10; what went right and wrong."""
    torch.manual_seed(0)
    faces = kshot.orl_faces(size=40)
    learner = kshot.ProtoNet(kshot.Conv4(faces.input_shape, hidden=32))
    episode = kshot.EpisodeConfig(way=12, shot=3, query_shot=4)
    kshot.meta_train(learner, faces.sampler("train", episode, 0), TRAINING, quiet=True)

    known = faces.dataset("val")
    X = np.concatenate([portraits(known, person) for person in range(known.num_classes)])
    y = np.repeat(np.arange(known.num_classes), 10)
    phone = kshot.Verifier(learner).calibrate(X, y, shot=3, false_accept=0.05)

    strangers = faces.dataset("test")
    opened, broken = [], []
    for owner in range(strangers.num_classes):  # everyone's phone in turn
        phone.enroll("owner", portraits(strangers, owner)[:3])
        for person in range(strangers.num_classes):
            for x in portraits(strangers, person)[3:]:
                answer = phone.verify("owner", x).accepted
                (opened if person == owner else broken).append(answer)
    print(f"opened for its owner {sum(opened)} times of {len(opened)}")
    print(f"opened for others    {sum(broken)} times of {len(broken)}")

    tries = kshot.EpisodeConfig(way=10, shot=3, query_shot=7)
    trials = collect_trials(learner, faces.sampler("test", tries, 0), 50)
    rates = error_rates(trials)
    print(f"equal error rate over all ten people {rates.equal_error_rate}")
    return {
        "opened": sum(opened) / len(opened),
        "broken": sum(broken) / len(broken),
        "equal_error_rate": rates.equal_error_rate.value,
    }


if __name__ == "__main__":
    main()
