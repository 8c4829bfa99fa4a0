"""ORL faces: people of one split are in no other, and strangers are refused."""

import numpy as np
import pytest
from PIL import Image

from kshot.data.sources.orl_faces import orl_faces


@pytest.mark.data
def test_people_are_split(data_folder):
    splits = orl_faces()
    sizes = {name: split.num_classes for name, split in splits.splits.items()}
    assert sizes == {"train": 25, "val": 5, "test": 10}
    assert all(len(rows) == 10 for split in splits.splits.values() for rows in split.rows)
    names = [name for split in splits.splits.values() for name in split.class_names]
    assert len(set(names)) == 40
    assert splits.dataset("test").class_names == tuple(f"s{n}" for n in range(31, 41))
    assert splits.input_shape == (1, 56, 56)
    faces = splits.dataset("train").examples
    assert faces.dtype == np.uint8 and 60 < faces.mean() < 180


def test_other_people_are_refused(tmp_path):
    for person in ("s1", "s2"):
        (tmp_path / person).mkdir()
        Image.new("L", (92, 112)).save(tmp_path / person / "1.pgm")
    with pytest.raises(ValueError, match=r"must hold the folders s1 to s40 .* and has 2 classes"):
        orl_faces(root=tmp_path)
    with pytest.raises(FileNotFoundError):
        orl_faces(root=tmp_path / "nowhere")
