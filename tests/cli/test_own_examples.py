"""fit, predict, add and inspect on rough data, as a person without any experience has it."""

import io
import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kshot.cli import main
from kshot.encoders import load_encoder
from kshot.heads import Rejection
from kshot.predictor import Predictor
from kshot.predictor_file import load_predictor, save_predictor

MODULE = '''
import torch
from kshot.encoders import PictureEncoder, TextEncoder

class Colors(torch.nn.Module):
    """The mean color, and a few pixels."""
    def forward(self, pictures):
        mean = pictures.mean((2, 3))
        pixels = torch.nn.functional.adaptive_avg_pool2d(pictures, 4).flatten(1)
        return torch.cat([3 * mean, 0.3 * pixels], 1)

class Words(torch.nn.Module):
    def __init__(self):
        super().__init__()
        rows = torch.randn(997, 24, generator=torch.Generator().manual_seed(0))
        self.rows = torch.nn.Parameter(rows)
    def forward(self, ids, attention_mask):
        return self.rows[ids]

class Convolutions(torch.nn.Sequential):
    """Two layers, of which the second one may be tuned."""
    def __init__(self):
        torch.manual_seed(0)
        layers = torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3)
        super().__init__(*layers, torch.nn.AdaptiveAvgPool2d(1))

def tokenize(texts):
    rows = [[sum(map(ord, w)) * 31 % 997 for w in text.lower().split()][:20] for text in texts]
    longest = max(map(len, rows))
    return {
        "ids": torch.tensor([row + [0] * (longest - len(row)) for row in rows]),
        "attention_mask": torch.tensor(
            [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        ),
    }

def pictures(device="cpu"):
    return PictureEncoder(Colors(), size=16, mean=(0.5,) * 3, std=(0.5,) * 3, device=device)

def layers(device="cpu"):
    return PictureEncoder(Convolutions(), size=16, mean=(0.5,) * 3, std=(0.5,) * 3, device=device)

def words(device="cpu"):
    return TextEncoder(Words(), tokenize, max_length=64, device=device)
'''
PICTURES = ("--encoder", "python:tiny_encoders:pictures")
WORDS = ("--encoder", "python:tiny_encoders:words")
QUICK = ("--head", "centroid")
COLORS = {
    "rose": (220, 30, 60),
    "grass": (20, 160, 40),
    "sky": (90, 150, 240),
    "sun": (250, 220, 0),
}
TABLE = """text,label
show me my balance,balance
what is the balance of my account,balance
how much money is on my account,balance
balance please,balance
I lost my card,lost
my card was stolen,lost
somebody has stolen my card,lost
the card is lost,lost
make a transfer to anna,transfer
transfer ten euros,transfer
please transfer money to tom,transfer
start a transfer,transfer
"""


@pytest.fixture(scope="session", autouse=True)
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a module of small encoders, on Python's path."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "tiny_encoders.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes of five pictures in `mine`, what was fitted to them, and other files."""
    root = tmp_path_factory.mktemp("made")
    for k, (name, color) in enumerate(COLORS.items()):
        for number in range(5):
            path = root / "mine" / name / f"{number}.png"
            draw(path, color, 10 * k + number, (20 + number, 30 - k))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KSHOT_CACHE", str(root / "cache"))
        out = ("--out", str(root / "mine.kshot"))
        assert main(["fit", str(root / "mine"), *out, *PICTURES, *QUICK]) == 0
    random = np.random.default_rng(0).normal(size=(6, 4))
    predictor = Predictor.fit(random, ["a", "b", "c"] * 2, head="centroid")
    save_predictor(predictor, root / "embeddings.kshot")
    (root / "intents.csv").write_text(TABLE)
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """Four classes of five pictures."""
    return Path(shutil.copytree(made / "mine", tmp_path / "mine"))


@pytest.fixture
def fitted(made: Path, tmp_path: Path) -> Path:
    """What was fitted to them."""
    return Path(shutil.copy(made / "mine.kshot", tmp_path))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "intents.csv"
    path.write_text(TABLE)
    return path


@pytest.fixture
def fit(folder: Path, tmp_path: Path, capsys):
    """Fits the folder and gives what was told."""

    def run(*more: str, out: str = "mine.kshot") -> dict:
        arguments = ["fit", str(folder), "--out", str(tmp_path / out), *PICTURES, "--json"]
        assert main([*arguments, *(more or QUICK)]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def draw(path: Path, color: tuple[int, int, int], seed: int, size: tuple[int, int] = (30, 24)):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 15, (*size[::-1], 3))
    image = Image.fromarray((np.array(color) + noise).clip(0, 255).astype(np.uint8))
    image.save(path)
    return image


def test_fit_tells_what_it_learned(folder, tmp_path, capsys):
    out = tmp_path / "my own.kshot"
    assert main(["fit", str(folder), "--out", str(out), *PICTURES]) == 0
    said = capsys.readouterr().out
    assert "4 classes, 20 examples" in said and "  grass  5\n" in said
    for head in ("centroid", "cosine", "ridge", "logistic"):
        assert f" {head}" in said
    assert "% right (95 % interval" in said and "log-loss" in said
    assert "Chosen: logistic; no other head is better beyond chance" in said
    assert "Inputs of no known class: " in said and "at most 5 % were asked" in said
    assert f"Written to {out}. Next: kshot predict '{out}' PICTURE..." in said


def test_predict_names_pictures_and_says_what_it_does_not_know(fitted, folder, tmp_path, capsys):
    strange, broken = tmp_path / "strange.png", tmp_path / "broken.jpg"
    draw(strange, (0, 0, 0), 1)
    predictor = load_predictor(fitted, encoder=load_encoder(PICTURES[1]))
    save_predictor(replace(predictor, rejection=Rejection(-0.005, 0.05, 0.0)), fitted)
    broken.write_bytes(b"no picture")
    queries = [str(folder / "rose" / "0.png"), str(broken), str(strange)]
    assert main(["predict", str(fitted), *queries, *PICTURES, "--json", "--top", "2"]) == 1
    output = capsys.readouterr()
    answers = json.loads(output.out)
    assert [answer["picture"] for answer in answers] == queries
    assert answers[0]["known"] and answers[0]["classes"][0]["class"] == "rose"
    assert len(answers[0]["classes"]) == 2
    assert "broken.jpg cannot be read" in answers[1]["error"] and answers[1]["error"] in output.err
    assert answers[2]["known"] is False
    assert main(["predict", str(fitted), *queries[::2], *PICTURES]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("rose (") and first.endswith(queries[0])
    assert ", or none of these  " in second and second.endswith(queries[2])


def test_a_folder_stands_for_the_pictures_in_it(fitted, folder, tmp_path, capsys):
    (folder / "sky" / "notes.txt").write_text("not a picture")
    arguments = ["predict", str(fitted), *PICTURES, "--json"]
    assert main([*arguments, str(folder / "sky"), str(folder / "sun" / "0.png")]) == 0
    answers = json.loads(capsys.readouterr().out)
    named = [(Path(answer["picture"]).name, answer["classes"][0]["class"]) for answer in answers]
    assert named == [*((f"{number}.png", "sky") for number in range(5)), ("0.png", "sun")]
    (tmp_path / "empty").mkdir()
    assert main([*arguments, str(tmp_path / "empty")]) == 1
    assert "has no pictures" in capsys.readouterr().err


def test_a_file_does_not_decide_what_code_runs(fitted, folder, capsys):
    picture = str(folder / "rose" / "0.png")
    for arguments in (["predict", str(fitted), picture], ["add", str(fitted), str(folder)]):
        assert main(arguments) == 1
        assert "a file must not decide what code runs" in capsys.readouterr().err
    assert main(["predict", str(fitted), "a", *WORDS]) == 1
    assert "made with another encoder" in capsys.readouterr().err


def test_lines_are_answered_as_they_come(table, tmp_path, monkeypatch):
    out = tmp_path / "intents.kshot"
    fitting = ["fit", str(table), "--out", str(out), *WORDS, *QUICK]
    assert main([*fitting, "--false-accept", "1"]) == 0
    (there, ask), (answer, here) = os.pipe(), os.pipe()
    with (
        os.fdopen(ask, "w") as questions,
        os.fdopen(answer) as answers,
        os.fdopen(there) as stdin,
        os.fdopen(here, "w") as stdout,
        ThreadPoolExecutor(1) as pool,
    ):
        monkeypatch.setattr("sys.stdin", stdin)
        monkeypatch.setattr("sys.stdout", stdout)
        status = pool.submit(main, ["predict", str(out), "--stdin", *WORDS])
        for line, label in (("my card is lost", "lost"), ("transfer to anna", "transfer")):
            print(line, file=questions, flush=True)
            said = answers.readline()  # before the next line is written
            assert said.startswith(f"{label} (") and said.endswith(f" %)\t{line}\n")
        questions.close()
        assert status.result(60) == 0


def test_a_line_that_cannot_be_read_keeps_its_place(table, tmp_path, capsys, monkeypatch):
    out = tmp_path / "intents.kshot"
    assert main(["fit", str(table), "--out", str(out), *WORDS, *QUICK]) == 0
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", io.StringIO("my card is lost\n\ntransfer to anna"))
    assert main(["predict", str(out), "--stdin", "--json", *WORDS]) == 1
    output = capsys.readouterr()
    first, second, third = map(json.loads, output.out.splitlines())
    assert first["classes"][0]["class"] == "lost" and third["classes"][0]["class"] == "transfer"
    assert second == {"sentence": "", "error": "The text is empty. Fill or remove it."}
    assert "line 2: The text is empty." in output.err


def test_sentences_may_be_arguments(table, tmp_path, capsys):
    out = tmp_path / "intents.kshot"
    assert main(["fit", str(table), "--out", str(out), *WORDS, *QUICK, "--names"]) == 0
    assert "and the name of each class as one more example" in capsys.readouterr().out
    assert main(["predict", str(out), "my card is lost", "[/red] :rose:", *WORDS]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("my card is lost") and second.endswith("  [/red] :rose:")


@pytest.mark.parametrize("head", ["logistic", "centroid"])
def test_add_equals_a_fit_to_everything(head, fit, folder, tmp_path, capsys):
    fitted = tmp_path / "mine.kshot"
    fit("--head", head)
    draw(folder / "sun" / "6.png", COLORS["sun"], 99)
    for number in range(3):
        draw(folder / "mud" / f"{number}.png", (90, 60, 30), 70 + number)
    fit("--head", head, out="all.kshot")
    more = tmp_path / "more" / "sun"
    draw(more / "6.png", COLORS["sun"], 99)
    assert main(["add", str(fitted), str(more), *PICTURES]) == 0
    assert "Added 1 example of 'sun'." in capsys.readouterr().out
    assert main(["add", str(fitted), str(folder / "mud"), *PICTURES, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["added"] == {"mud": 3} and told["classes"]["sun"] == 6
    queries = [str(path) for path in sorted(folder.rglob("*.png"))]
    answers = []
    for file in (fitted, tmp_path / "all.kshot"):
        assert main(["predict", str(file), *queries, *PICTURES, "--json", "--top", "5"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    for ours, theirs in zip(*answers, strict=True):
        assert ours["known"] == theirs["known"]
        probabilities = [
            {one["class"]: one["probability"] for one in answer["classes"]}
            for answer in (ours, theirs)
        ]
        assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-5)


def test_add_writes_elsewhere_and_learns_nothing_twice(fitted, folder, tmp_path, capsys):
    before = fitted.read_bytes()
    out = tmp_path / "other.kshot"
    arguments = ["add", str(fitted), str(folder / "rose"), *PICTURES, "--out", str(out)]
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "Of 'rose', 5 examples are copies of another" in said and "nothing is changed" in said
    assert main([*arguments, "--label", "red"]) == 0
    said = capsys.readouterr()
    assert "Added 5 examples of 'red' (new)." in said.out
    assert "'rose/0.png' of 'rose' and 'rose/0.png' of 'red' are the same" in said.err
    assert fitted.read_bytes() == before and out.exists()
    assert main([*arguments, "--label", "red"]) == 1
    assert "There is something at" in capsys.readouterr().err


def test_add_takes_a_table(table, tmp_path, capsys):
    out, more = tmp_path / "intents.kshot", tmp_path / "more.tsv"
    assert main(["fit", str(table), "--out", str(out), *WORDS, *QUICK]) == 0
    more.write_text("what\tis\ngood morning\thello\nhello there\thello\n")
    arguments = ["add", str(out), str(more), "--text", "what", "--label", "is", *WORDS]
    assert main(arguments) == 0
    assert "Added 2 examples of 'hello' (new)." in capsys.readouterr().out


def test_labels_made_in_python_may_be_numbers(folder, tmp_path, capsys):
    names = sorted(COLORS)
    pictures = [folder / name / f"{n}.png" for name in names for n in range(4)]
    predictor = Predictor.fit(
        pictures,
        np.repeat([1, 2, 3, 4], 4),
        encoder=load_encoder(PICTURES[1]),
        head="centroid",
    )
    save_predictor(predictor, tmp_path / "numbers.kshot")
    shutil.move(folder / names[0], tmp_path / "1")
    assert main(["add", str(tmp_path / "numbers.kshot"), str(tmp_path / "1"), *PICTURES]) == 0
    assert "Added 1 example of '1'." in capsys.readouterr().out
    assert load_predictor(tmp_path / "numbers.kshot", without_encoder=True).classes == (1, 2, 3, 4)


def test_inspect_needs_no_encoder_and_finds_what_is_wrong(
    fit, folder, tmp_path, capsys, monkeypatch
):
    draw(folder / "rose" / "green.png", COLORS["grass"], 77)
    shutil.copy(folder / "sun" / "2.png", folder / "sky" / "twin.png")
    fit()
    monkeypatch.setitem(sys.modules, "tiny_encoders", None)
    assert main(["inspect", str(tmp_path / "mine.kshot"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["encoder"]["spec"] == PICTURES[1] and told["classes"]["rose"] == 6
    wrong = {one["example"]: one["looks_like"] for one in told["likely_mislabelled"]}
    assert wrong["rose/green.png"] == "grass" and wrong["sky/twin.png"] == "sun"
    [twins] = [one for one in told["duplicates"] if one["same"]]
    assert {twins["first"], twins["second"]} == {"sky/twin.png", "sun/2.png"}
    assert len(told["hardest_pairs"]) == 5
    assert main(["inspect", str(tmp_path / "mine.kshot")]) == 0
    said = capsys.readouterr().out
    assert f"reads pictures by {PICTURES[1]}" in said
    assert "Hardest to tell apart" in said and "% right (95 % interval" in said
    assert "'rose/green.png' is labelled 'rose', but without it looks like 'grass'" in said
    assert "'sky/twin.png' of 'sky' and 'sun/2.png' of 'sun': the same" in said


# A rough folder: one line each.


def test_sizes_modes_and_orientations_are_read(folder, fit):
    big, turned = folder / "rose" / "big.jpg", folder / "rose" / "turned.jpg"
    image = draw(big, COLORS["rose"], 50, (300, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(turned, exif=exif)
    image.convert("L").save(folder / "sky" / "grey.png")
    image.putalpha(120)
    image.save(folder / "sun" / "alpha.png")
    told = fit()
    assert told["classes"] == {"grass": 5, "rose": 7, "sky": 6, "sun": 6} and told["notes"] == []


def test_a_truncated_picture_is_left_out(folder, fit):
    path = folder / "rose" / "cut.jpg"
    draw(path, COLORS["rose"], 51, (200, 200))
    path.write_bytes(path.read_bytes()[:900])
    told = fit()
    assert told["classes"]["rose"] == 5
    [note] = told["notes"]
    assert f"{path} cannot be read" in note and note.endswith("It is left out.")


def test_a_text_file_among_pictures_is_left_out(folder, fit):
    (folder / "rose" / "notes.txt").write_text("from the garden")
    told = fit()
    assert told["notes"] == ["notes.txt among the pictures of 'rose' is not a picture: left out."]


def test_the_same_picture_in_two_classes_is_told(folder, fit):
    shutil.copy(folder / "sun" / "0.png", folder / "sky" / "copy.png")
    told = fit()
    assert told["classes"]["sky"] == 6
    assert told["notes"] == [
        "'sky/copy.png' of 'sky' and 'sun/0.png' of 'sun' are the same, so one of the labels is "
        "wrong: remove one of them. All are learned for now."
    ]


def test_other_classes_teach_an_adapter(folder, fit, tmp_path, capsys):
    random = np.random.default_rng(7)
    for k in range(6):
        red, green, blue = random.integers(0, 255, 3).tolist()
        for number in range(3):
            color = (red, green, blue)
            draw(tmp_path / "others" / f"other {k}" / f"{number}.png", color, 100 * k + number)
    told = fit("--others", str(tmp_path / "others"), "--head", "adapter")
    assert told["head"] == "adapter"
    assert main(["predict", str(tmp_path / "mine.kshot"), str(folder / "sky"), *PICTURES]) == 0
    capsys.readouterr()
    arguments = ["fit", str(folder), "--out", str(tmp_path / "b.kshot"), *PICTURES]
    assert main([*arguments, "--others", str(folder)]) == 1
    assert "Others are other classes" in capsys.readouterr().err


def test_a_last_block_is_tuned(folder, tmp_path, capsys):
    out, reader = str(tmp_path / "tuned.kshot"), ("--encoder", "python:tiny_encoders:layers")
    assert main(["fit", str(folder), "--out", out, "--head", "last_block", *reader]) == 0
    said = capsys.readouterr().out
    assert "  logistic " in said and "* last_block " in said and "Chosen: last_block" in said
    assert main(["predict", out, str(folder / "sky"), *reader]) == 0
    assert capsys.readouterr().out.count("sky (") == 5
    assert main(["inspect", out]) == 0
    assert "* last_block" in capsys.readouterr().out
    assert main(["add", out, str(folder / "sky"), "--label", "blue", *reader]) == 1
    assert "fit it again" in capsys.readouterr().err


def test_copies_within_a_class_are_counted_and_learned_once(folder, fit):
    for name in ("a.png", "b.png"):
        shutil.copy(folder / "sun" / "0.png", folder / "sun" / name)
    told = fit()
    assert told["classes"]["sun"] == 5
    assert told["notes"] == [
        "Of 'sun', 2 examples are copies of another: each content is learned once."
    ]


def test_a_class_of_one_picture_is_told(folder, tmp_path, capsys):
    draw(folder / "mud" / "0.png", (90, 60, 30), 70)
    assert main(["fit", str(folder), "--out", str(tmp_path / "mine.kshot"), *PICTURES, *QUICK]) == 0
    assert "A single example: mud. It is learned, but cannot be held out" in capsys.readouterr().out


def test_single_examples_give_no_estimate(tmp_path, capsys):
    for name, color in COLORS.items():
        draw(tmp_path / "mine" / name / "0.png", color, 0)
    out = str(tmp_path / "mine.kshot")
    assert main(["fit", str(tmp_path / "mine"), "--out", out, *PICTURES]) == 0
    said = capsys.readouterr().out
    assert "Every class has a single example" in said and "no estimate" in said
    assert "too few to choose by" in said
    assert main(["inspect", out]) == 0
    assert "Hardest to tell apart: unknown" in capsys.readouterr().out


def test_two_classes_cannot_recognize_strangers(folder, tmp_path, capsys):
    for name in ("sky", "sun"):
        shutil.rmtree(folder / name)
    assert main(["fit", str(folder), "--out", str(tmp_path / "mine.kshot"), *PICTURES, *QUICK]) == 0
    assert "Inputs of no known class are not recognized" in capsys.readouterr().out


def test_unicode_names_of_classes_are_one_class(folder, fit, tmp_path, capsys):
    shutil.move(folder / "rose", folder / unicodedata.normalize("NFD", "Rosé 🌹"))
    told = fit()
    assert told["classes"]["Rosé 🌹"] == 5
    draw(tmp_path / "Rosé 🌹" / "9.png", COLORS["rose"], 88)
    file = str(tmp_path / "mine.kshot")
    assert main(["add", file, str(tmp_path / "Rosé 🌹"), *PICTURES]) == 0
    assert "Added 1 example of 'Rosé 🌹'.\n" in capsys.readouterr().out


def test_a_table_with_a_byte_order_mark_and_empty_rows_is_read(tmp_path, capsys):
    path = tmp_path / "intents.csv"
    path.write_bytes(("\ufeff" + TABLE.replace("\n", "\r\n") + "\r\n,lost\r\n").encode())
    assert (
        main(["fit", str(path), "--out", str(tmp_path / "i.kshot"), *WORDS, *QUICK, "--json"]) == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert told["classes"] == {"balance": 4, "lost": 4, "transfer": 4}
    assert told["notes"] == [
        "1 row of intents.csv without anything is left out.",
        "1 row of intents.csv without 'text' is left out.",
    ]


def test_an_archive_is_read_and_names_what_is_broken(folder, tmp_path, capsys):
    (folder / "rose" / "9.jpg").write_bytes(b"no picture")
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", folder)
    assert (
        main(["fit", archive, "--out", str(tmp_path / "z.kshot"), *PICTURES, *QUICK, "--json"]) == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert told["classes"] == dict.fromkeys(sorted(COLORS), 5)
    assert "The picture rose/9.jpg cannot be read" in told["notes"][0]


def test_too_few_readable_classes_are_an_error(folder, tmp_path, capsys):
    for name in ("grass", "sky", "sun"):
        for path in (folder / name).iterdir():
            path.write_bytes(b"no picture")
    out = tmp_path / "mine.kshot"
    assert main(["fit", str(folder), "--out", str(out), *PICTURES]) == 1
    said = capsys.readouterr().err
    assert "No example of 'grass' is left: the class is left out." in said
    assert "has examples of 1 class that can be read (rose), and there must be two" in said
    assert not out.exists()


def test_a_file_is_not_overwritten_unless_told(fitted, fit, folder, tmp_path, capsys):
    before = fitted.read_bytes()
    arguments = ["fit", str(folder), *PICTURES, "--out"]
    assert main([*arguments, str(fitted)]) == 1
    assert "replace the file with --force" in capsys.readouterr().err
    assert fitted.read_bytes() == before
    fit("--head", "cosine", "--force")
    assert fitted.read_bytes() != before
    assert main([*arguments, str(tmp_path / "photo.jpg"), "--force"]) == 1
    assert "is named NAME.kshot" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["fit", "mine", "--out", "a.kshot", *WORDS], "reads text, but the examples are pictures"),
        (["fit", "mine", "--out", "a.kshot", "--text", "a"], "name columns of a table"),
        (["fit", "mine", "--out", "a.kshot", "--head", "rige", *PICTURES], "Did you mean 'ridge'"),
        (["fit", "gone", "--out", "a.kshot", "--head", "rige"], "Did you mean 'ridge'"),
        (["fit", "gone", "--out", "a.kshot", "--head", "adapter"], "and there are none"),
        (["fit", "gone", "--out", "a.kshot", "--head", "ridge", "--others", "b"], "does not use"),
        (["fit", "gone", "--out", "a.kshot", "--head", "last_block", "--names"], "not from names"),
        (["fit", "mine", "--out", "a.kshot", "--head", "last_block", *PICTURES], "no block"),
        (["fit", "gone", "--out", "a.kshot", *PICTURES], "no folder and no zip archive at gone"),
        (["fit", "mine/sun/0.png", "--out", "a.kshot"], "is no source of examples"),
        (["predict", "mine.kshot", *PICTURES], "What is to be named?"),
        (["predict", "mine.kshot", "a", "--stdin", *PICTURES], "not both"),
        (["predict", "mine.kshot", "a", "--support", "b"], "go with the folder of a run"),
        (["predict", "mine.kshot", "a", "--top", "0"], "--top must be 1 or more"),
        (["predict", "gone.kshot", "a"], "There is no file gone.kshot. `kshot fit` makes one"),
        (["predict", "mine", "a"], "is no file that kshot fit made"),
        (["predict", "mine"], "--support FOLDER --query"),
        (["predict", "mine", "--support", "a", "--query", "b", "--weights", "c"], "A run has its"),
        (["predict", "embeddings.kshot", "a"], "made of embeddings"),
        (["inspect", "intents.csv"], "is not a predictor"),
    ],
)
def test_what_is_wrong_is_told(arguments, told, made, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(made)
    assert main(arguments) == 1
    assert told in capsys.readouterr().err


def test_a_second_fit_reads_no_picture_again(fit, monkeypatch: pytest.MonkeyPatch):
    from kshot.encoders import PictureEncoder

    fit()
    monkeypatch.setattr(PictureEncoder, "_decode", lambda *_: pytest.fail("decoded again"))
    fit(*QUICK, "--force")
