"""Where recipes are: TOML files in recipes/, also inside an installed package."""

from pathlib import Path

__all__ = ["find_recipe", "recipe_names", "recipes_folder"]


def recipes_folder() -> Path:
    """The folder of the recipes: inside the installed package, or at the root of a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parents[1] / "recipes"


def recipe_names() -> list[str]:
    """Names of all recipes, such as "omniglot/protonet_vinyals"."""
    folder = recipes_folder()
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.toml")
    )


def find_recipe(target: str) -> Path | None:
    """The file of a recipe: a path, a name, or a learner's name for its recipe on glyphs."""
    if target.endswith(".toml"):
        path = Path(target)
        if not path.exists():
            raise FileNotFoundError(f"There is no recipe {target}. `kshot list recipes` shows all.")
        return path
    for name in (target, f"glyphs/{target}"):
        path = recipes_folder() / f"{name}.toml"
        if path.exists():
            return path
    return None
