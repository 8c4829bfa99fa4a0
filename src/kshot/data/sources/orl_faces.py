"""ORL faces: 40 people, ten grey portraits each."""

from pathlib import Path

from kshot.data.files import find_data
from kshot.data.sources.image_folder import read_folder
from kshot.data.splits import LabelledSplits, split_classes
from kshot.options import checks_options

__all__ = ["orl_faces"]


@checks_options
def orl_faces(*, root: Path = Path("orl_faces/orl_faces.zip"), size: int = 56) -> LabelledSplits:
    """The ORL (AT&T) faces, to verify people that training never saw.

    There is no published split by people; here people 1 to 25 train, 26 to 30 validate, and 31 to
    40 are tested.

    Args:
        root: The archive, or the folder of folders s1 to s40, which is not downloaded; a relative
            path is also looked for in $KSHOT_DATA.
        size: Side in pixels to which the portraits of 92 x 112 are stretched.

    Returns:
        Splits under the protocol "people25-5-10".

    Raises:
        FileNotFoundError: when there is nothing at `root`.
        ValueError: when it does not hold these forty people.

    Reference:
        Parameterisation of a Stochastic Model for Human Face Identification. WACV 1994.
        Credit to the Olivetti Research Laboratory, Cambridge.
    """
    path = find_data(root)
    data, _, preparation = read_folder(path, size, 1, "stretch")
    people = [f"s{number}" for number in range(1, 41)]
    if sorted(data.class_names) != sorted(people):
        raise ValueError(
            f"{path} must hold the folders s1 to s40 of the ORL faces, and has "
            f"{data.num_classes} classes, such as {data.class_names[0]!r}."
        )
    lists = {"train": people[:25], "val": people[25:30], "test": people[30:]}
    return LabelledSplits(
        name="orl_faces",
        protocol="people25-5-10",
        splits=split_classes(data, lists),
        preparation=preparation,
    )
