"""Files keep their form: small, named after an idea, documented; recipes and results are whole."""

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from statistics import median

import pytest

import kshot
from kshot.evaluation.results import merge_results, published_figure, read_results
from kshot.recipe import load_recipe

ROOT = Path(__file__).parents[2]


def files(pattern: str) -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern))


SOURCES = files("src/kshot/**/*.py")
EXAMPLES = files("examples/*.py")
RECIPES = files("recipes/**/*.toml")
BENCHMARKS = files("results/benchmarks/**/*.json")
OPTIMIZERS = files("results/optimizers/**/*.json")
VERIFICATION = files("results/verification/**/*.json")
RESULTS = [
    path
    for path in files("results/**/*.json")
    if path not in (*BENCHMARKS, *OPTIMIZERS, *VERIFICATION)
]

RESULT_KEYS = {
    "learner",
    "data",
    "protocol",
    "split",
    "backbone",
    "way",
    "shot",
    "query_shot",
    "episodes",
    "accuracy",
    "ci95",
    "batch_norm",
    "transductive",
    "seed",
    "train_seconds",
    "train_iterations",
    "command",
    "versions",
    "git",
    "machine",
    "recipe",
    "published",
}
VERIFICATION_KEYS = {
    *RESULT_KEYS - {"accuracy", "ci95", "transductive", "published"},
    "setting",
    "threshold_split",
    "equal_error_rate",
    "true_accepts_at",
    "false_accepts",
    "true_accepts",
}
OPTIMIZER_KEYS = {"problem", "optimizer", "seed", "command", "versions", "git", "machine"}
BENCHMARK_KEYS = {"case", "ours", "peer", "peer_name", "ratio", "unit"}


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def num_lines(path: str) -> int:
    return len(read(path).splitlines())


def test_there_is_something_to_check():
    assert "src/kshot/episodes.py" in SOURCES
    found = {"examples": EXAMPLES, "recipes": RECIPES, "results": RESULTS + BENCHMARKS}
    assert all(paths for folder, paths in found.items() if (ROOT / folder).exists()), found


@pytest.mark.parametrize("path", SOURCES)
def test_a_source_file_has_at_most_400_lines(path: str):
    assert num_lines(path) <= 400, f"{path} holds more than one idea; split it"


@pytest.mark.parametrize("path", EXAMPLES)
def test_an_example_has_fewer_than_80_lines(path: str):
    assert num_lines(path) < 80


def test_names_say_what_is_in_a_file():
    bag = re.compile(r"(^|[/_])(utils?|helpers?|misc|common)(\.py|/)")
    patterns = [f"{folder}/**/*.py" for folder in ("src", "tests", "benchmarks", "examples")]
    assert not [path for pattern in patterns for path in files(pattern) if bag.search(path)]


def test_every_folder_of_sources_is_a_package():
    folders = {(ROOT / path).parent for path in SOURCES}
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]


@pytest.mark.parametrize("path", SOURCES)
def test_a_module_says_what_it_is_and_what_is_public(path: str):
    tree = ast.parse(read(path))
    assert ast.get_docstring(tree), f"{path} starts with no docstring"
    if not path.endswith(("/__main__.py", "src/kshot/__init__.py")):
        names = public_names(tree)
        assert names is not None, f"{path} has no __all__, or one that is not a plain list"
        assert len(names) == len(set(names)), f"{path} names something twice in __all__"


@pytest.mark.parametrize("name", kshot.__all__)
def test_a_public_name_of_the_package_loads(name: str):
    assert getattr(kshot, name) is not None


@pytest.mark.parametrize("path", SOURCES)
def test_a_public_name_is_documented(path: str):
    tree = ast.parse(read(path))
    documented = dict(definitions(tree.body))
    missing = [name for name in public_names(tree) or () if not documented.get(name)]
    assert not missing, f"in {path}, {missing} are in __all__ without a docstring, or undefined"


def public_names(tree: ast.Module) -> list[str] | None:
    """The names in `__all__`; None without a literal one."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            try:
                return list(ast.literal_eval(node.value))
            except ValueError:
                return None
    return None


def definitions(body: list[ast.stmt]) -> Iterator[tuple[str, bool]]:
    """Each name a module defines and whether a docstring follows; imports have theirs elsewhere."""
    for node, following in zip_longest(body, body[1:]):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name, ast.get_docstring(node) is not None
            case ast.Import() | ast.ImportFrom():
                yield from ((alias.asname or alias.name, True) for alias in node.names)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name, is_text(following)
            case ast.If() | ast.Try():
                blocks = [node.body, node.orelse, *(h.body for h in getattr(node, "handlers", ()))]
                for block in blocks:
                    yield from definitions(block)


def is_text(node: ast.stmt | None) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


@pytest.mark.parametrize("path", RECIPES)
def test_a_recipe_parses_and_starts_with_its_command(path: str):
    text = read(path)
    tomllib.loads(text)
    first = text.partition("\n")[0]
    assert re.match(rf"# kshot train {re.escape(path)}( |$)", first), (
        f"the first line must be '# kshot train {path}', it is {first!r}"
    )


@pytest.mark.parametrize("path", RESULTS)
def test_a_result_is_whole(path: str):
    check_rows(path, RESULT_KEYS)


@pytest.mark.parametrize("path", RESULTS)
def test_no_two_rows_of_a_result_measure_the_same(path: str, tmp_path: Path):
    rows = read_results(ROOT / path)
    merge_results(tmp_path / "merged.json", rows)
    assert len(read_results(tmp_path / "merged.json")) == len(rows)


@pytest.mark.parametrize("path", RESULTS)
def test_a_result_stands_beside_the_figure_of_its_recipe(path: str):
    for row in read_results(ROOT / path):
        if row["recipe"] and row["split"] == "test":
            recipe = load_recipe(ROOT / row["recipe"])
            if row["learner"] == recipe.learner.name:
                assert row["published"] == published_figure(recipe.published, row)


@pytest.mark.parametrize("path", BENCHMARKS)
def test_a_benchmark_is_whole(path: str):
    check_rows(path, BENCHMARK_KEYS)


@pytest.mark.parametrize("path", OPTIMIZERS)
def test_a_result_of_optimizers_is_whole(path: str):
    check_rows(path, OPTIMIZER_KEYS)


@pytest.mark.parametrize("path", VERIFICATION)
def test_a_result_of_verification_is_whole(path: str):
    check_rows(path, VERIFICATION_KEYS)


def test_every_error_rate_of_a_page_is_a_result():
    """Of docs/choose.md: value (low to high), in per cent."""
    measured = {
        f"{100 * rate['value']:.1f} ({100 * rate['low']:.1f} to {100 * rate['high']:.1f})"
        for path in VERIFICATION
        for row in json.loads(read(path))
        for rate in (row["equal_error_rate"], *row["true_accepts_at"].values())
    }
    text = read("docs/choose.md").partition("## Verification")[2].partition("\n## ")[0]
    told = re.findall(r"[\d.]+ \([\d.]+ to [\d.]+\)", text)
    assert told and set(told) <= measured, set(told) - measured


PAGES = [
    "README.md",
    "README.zh.md",
    "docs/compare.md",
    "docs/choose.md",
    "docs/heads.md",
    "docs/memory.md",
    "docs/optimizers.md",
    "docs/papers.md",
    "docs/demo.md",
]


@pytest.mark.parametrize("page", PAGES)
def test_every_figure_of_a_page_is_a_result(page: str):
    measured = set()
    for path in RESULTS:
        for row in json.loads(read(path)):
            if row["accuracy"] is None:
                measured.add(f"{row['mean_squared_error']:.2f} ± {row['ci95']:.2f}")
            else:
                measured.add(f"{100 * row['accuracy']:.1f} ± {100 * row['ci95']:.1f}")
    told = re.findall(r"[\d.]+ ± [\d.]+", read(page))
    assert told and set(told) <= measured, set(told) - measured


@pytest.mark.parametrize(
    ("file", "start"), [("inner_loop", "## How fast"), ("inner_loop_cuda", "### On a GPU")]
)
def test_the_table_of_speeds_is_what_was_measured(file: str, start: str):
    """Cells of docs/speed.md: milliseconds, and these divided by the plain loop's."""
    measured = {
        (row["contestant"], row["what"]): f"{row['ours']:,.1f} ({row['ratio_to_plain_loop']:.2f})"
        for row in json.loads(read(f"results/benchmarks/{file}.json"))
    }
    table = read("docs/speed.md").partition(start)[2].partition("| ms a step |")[2]
    head, _, *lines = table.partition("\n\n")[0].splitlines()
    cases = head.strip("| ").split(" | ")
    told = {
        (name, case): cell
        for name, *cells in (line.strip("| ").split(" | ") for line in lines)
        for case, cell in zip(cases, cells, strict=True)
        if cell != "-"
    }
    assert told == {key: measured.get(key) for key in told}
    assert len(told) > 8 * len(cases)


def test_the_table_beside_easyfsl_is_what_was_measured():
    """Cells of docs/speed.md: from files, then the bare step: kshot, easyfsl, their ratio."""
    rows = json.loads(read("results/benchmarks/metric.json"))
    cells = [
        [f"{row['ours']:.1f}", f"{row['peer']:.1f}", f"{row['ratio']:.2f}"]
        for row in rows
        if row["unit"] == "episodes/s"
    ]
    measured = [from_files + bare for from_files, bare in zip(*[iter(cells)] * 2, strict=True)]
    table = read("docs/speed.md").partition("| learner, encoder |")[2].partition("\n\n")[0]
    told = [line.strip("| ").split(" | ")[1:] for line in table.splitlines()[2:]]
    assert told == measured


def test_the_speed_of_reading_in_turn_is_what_was_measured():
    """Numbers of docs/memory.md, each with what it is of."""
    rows = json.loads(read("results/benchmarks/memory.json"))
    by_name = {row["case"].partition(": ")[0]: row for row in rows}
    *plain, compiled = by_name
    text = " ".join(read("docs/memory.md").split())
    for name in plain:
        assert f"`{name}` {by_name[name]['ours']:.0f}" in text
    assert f"and {by_name[compiled]['ours']:.0f} with its step compiled" in text
    of_mann = by_name["mann"]["profile"]
    assert f"takes {of_mann['operations_a_step']:.0f} on small tensors" in text
    assert f"products are {100 * of_mann['share_of_matrix_products']:.0f} % of the time" in text
    assert f"it takes {by_name[compiled]['profile']['operations_a_step']:.0f}." in text


def test_the_table_of_black_boxes_is_what_was_measured():
    """Cells of docs/optimizers.md: a median over seeds (lowest to highest), in thousandths."""
    rows = json.loads(read("results/optimizers/black_box.json"))
    told = [line.strip("| ").split(" | ") for line in read("docs/optimizers.md").splitlines()]
    names = {row["optimizer"] for row in rows}
    assert {line[0]: line[1:] for line in told if line[0] in names} == {
        name: [
            spread([1000 * row[column] for row in rows if row["optimizer"] == name])
            for column in ("regret_at_20", "regret_at_50")
        ]
        for name in names
    }


def test_the_table_of_learned_optimizers_is_what_was_measured():
    """Cells of docs/optimizers.md: the loss after 100 steps, for each kind of problem."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in json.loads(read("results/optimizers/learned_optimizer.json")):
        of_optimizer = found.setdefault(row["optimizer"], {})
        of_optimizer.setdefault(row["problem"], []).append(row["loss_at_100"])
    told: dict[str, dict[str, str]] = {}
    for table in read("docs/optimizers.md").split("| loss after 100 steps |")[1:]:
        lines = table.partition("\n\n")[0].splitlines()
        problems, _, *cells = (line.strip("| ").split(" | ") for line in lines)
        for name, *losses in cells:
            told.setdefault(name, {}).update(zip(problems, losses, strict=True))
    assert told == {
        name: {problem: spread(losses) for problem, losses in of_optimizer.items()}
        for name, of_optimizer in found.items()
    }


def spread(values: list[float]) -> str:
    """A median, from the lowest to the highest."""
    return f"{median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def check_rows(path: str, keys: set[str]) -> None:
    """A file holds one row, or a list of rows."""
    content = json.loads(read(path))
    rows = content if isinstance(content, list) else [content]
    assert rows, f"{path} has no rows"
    for number, row in enumerate(rows):
        assert keys <= row.keys(), f"row {number} of {path} lacks {sorted(keys - row.keys())}"
