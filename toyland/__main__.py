"""The whole family by one command: every training, then the tables of what was reached.

    python -m toyland --preset quick-gpu --device cuda --out outputs/toyland-new

A run that was cut off goes on where it was.
"""

from __future__ import annotations

import sys

from toyland.judges import defects, evaluate, evaluate_tasks
from toyland.training import train, train_tasks
from toyland.training.options import chosen_device, chosen_recipe, family_options

__all__ = ["main"]


def main(argv: list[str]) -> None:
    """Train what is not complete, and print the tables; reports and pictures to look at lie in `--out`/tables."""
    options = family_options(__doc__).parse_args(argv)
    recipe, device = chosen_recipe(options), chosen_device(options)
    train.main(argv)
    train_tasks.main(argv)
    tables = options.out / "tables"
    tables.mkdir(exist_ok=True)
    shared = ["--model", str(options.out)]
    defects.main([*shared, "--pictures", str(recipe.table_prompts)])
    evaluate.main([*shared, "--device", device, "--prompts", str(recipe.table_prompts),
                   "--renders", str(recipe.table_prompts), "--grid", str(options.out / "grid.png"),
                   "--report", str(tables / "base.json")])
    evaluate_tasks.main([*shared, "--device", device, "--pictures", str(recipe.table_pictures),
                         "--grid-folder", str(tables), "--report", str(tables / "tasks.json")])


if __name__ == "__main__":
    main(sys.argv[1:])
