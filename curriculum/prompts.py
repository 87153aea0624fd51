"""Prompt files: one YAML file per prompt, with its name, version, declared variables and text.

`load_prompt` reads and checks one; `system_prompt` takes the student's from the config; `Prompt.render` fills in
`$name` variables by plain substitution; the hash of a prompt is recorded wherever it was used.
"""

import string
from importlib import resources
from pathlib import Path

import yaml
from pydantic import ValidationError

from curriculum.errors import ConfigError
from curriculum.records import Part, content_id
from curriculum.student_config import StudentConfig


class Prompt(Part):
    """A prompt as it stands in its file."""

    name: str
    version: int
    variables: tuple[str, ...]
    text: str

    @property
    def hash(self) -> str:
        """Identity of the prompt: its name, version and text."""
        return content_id(self.model_dump())

    def render(self, **values: str) -> str:
        """The text with every declared variable filled in.

        Raises:
            ConfigError: variables are missing or not declared; all of them are named.
        """
        if set(values) != set(self.variables):
            missing, unknown = set(self.variables) - set(values), set(values) - set(self.variables)
            raise ConfigError(f"prompt {self.name}: missing variables {sorted(missing)}, unknown {sorted(unknown)}")
        return string.Template(self.text).substitute(values)


def load_prompt(name: str) -> Prompt:
    """Reads `prompts/<name>.yaml` of the installed package.

    Raises:
        ConfigError: there is no such prompt, or the file breaks the format.
    """
    folder = resources.files("prompts")
    names = sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))
    if name not in names:
        raise ConfigError(f"prompt {name!r}: expected one of {', '.join(names)}")
    try:
        prompt = Prompt.model_validate(yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError) as error:
        raise ConfigError(f"prompts/{name}.yaml: {error}") from None
    used = set(string.Template(prompt.text).get_identifiers())
    if used != set(prompt.variables):
        raise ConfigError(f"prompts/{name}.yaml: declares {sorted(prompt.variables)} but uses {sorted(used)}")
    return prompt


def system_prompt(config: StudentConfig) -> Prompt:
    """The student's system prompt: the config's text, the text of the file it names, or a prompt file.

    Raises:
        ConfigError: the file cannot be read, or the prompt file is not there or breaks the format.
    """
    if config.system_prompt is not None:
        return _given("student.system_prompt", config.system_prompt)
    if config.system_prompt_file is not None:
        return _given("student.system_prompt_file", _read(config.system_prompt_file))
    return load_prompt(config.prompt)


def _given(key: str, text: str) -> Prompt:
    return Prompt(name=key, version=1, variables=(), text=text.strip())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else f"byte {error.start}, which is not UTF-8"
        raise ConfigError(
            f"{path}: expected a text file with the student's system prompt, got: {why}. The path is relative to the "
            "current directory; set student.system_prompt_file"
        ) from None
