"""What methods need that can be known before anything is computed: files, and names of skills.

Each is checked as early as it is known: by the config alone, else by the data, else by the catalogue of skills.
"""

from collections.abc import Collection

from curriculum.config import Config
from curriculum.data_config import GeneratorData
from curriculum.errors import ConfigError, UserError
from curriculum.records import SkillCatalogue
from curriculum.rows import printable
from curriculum.unwanted import read_pairs


def check_methods(config: Config) -> None:
    """Refuses pairs that cannot be read, and a loss for skills that a generator's tasks do not have.

    Raises:
        ConfigError: with both.
    """
    faults = []
    if config.plan.unwanted is not None:
        try:
            read_pairs(config.plan.unwanted.pairs)
        except UserError as error:
            faults.append(str(error))
    if isinstance(config.data, GeneratorData) and config.teacher.kind == "offline":
        faults += _unknown(config, {skill for task in config.data.tasks for skill in task.split("+")})
    if faults:
        raise ConfigError("\n".join(faults))


def check_skills(config: Config, catalogue: SkillCatalogue) -> None:
    """Refuses a loss for skills that the catalogue does not have.

    Raises:
        ConfigError: with those that it has.
    """
    if faults := _unknown(config, {skill.id for skill in catalogue.skills}):
        raise ConfigError("\n".join(faults))


def _unknown(config: Config, known: Collection[str]) -> list[str]:
    unknown = sorted(set(config.training.dft_skills) - set(known))
    if not unknown:
        return []
    return [
        f"training.dft_skills: expected some of {', '.join(sorted(known))}, got "
        f"{', '.join(map(printable, unknown))}. Start a new run with --set training.dft_skills=[…]"
    ]
