"""The user's own grader, `data.grader_function: package.module:function`: where it is, without importing it.

The function is called as `function(question=…, gold=…, answer=…)` with three texts and returns `True` or `False`; it
runs in a grading worker only. Here its file is found and hashed, so that a run notices when it changes.
"""

import sys
from importlib.machinery import PathFinder
from pathlib import Path

from curriculum.errors import ConfigError
from curriculum.rundir import file_hash


def grader_file(function: str, folder: Path) -> Path:
    """The Python file of `package.module:function`, looked for in the folder and then among what is installed.

    Raises:
        ConfigError: there is no such file, or the module is one of Python's own.
    """
    module = function.partition(":")[0]
    names = module.split(".")
    where: list[str] | None = [str(folder), *sys.path]
    found = None
    # Step by step: `importlib.util.find_spec` would import the packages on the way.
    for depth in range(len(names)):
        found = PathFinder.find_spec(".".join(names[: depth + 1]), where)
        where = list(found.submodule_search_locations or ()) if found else []
    path = Path(found.origin) if found and found.has_location and found.origin else None
    if path is None or path.suffix != ".py" or names[0] in sys.stdlib_module_names:
        raise ConfigError(
            f"data.grader_function {function}: expected a module of yours in {folder} or among the installed packages, "
            f"got none called {module}. Start in the folder that holds {names[0]}, or install it"
        )
    return path


def grader_hash(function: str, folder: Path) -> str:
    """SHA-256 of the grader's file; what it imports is not looked at.

    Raises:
        ConfigError: as `grader_file`.
    """
    return file_hash(grader_file(function, folder))
