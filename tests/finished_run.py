"""A finished run whose accepted adapter has real weights, in seconds: the loop with the fake student, then the adapter
of a tiny model put in the place of the fake's, with everything that records it.
"""

import json
from pathlib import Path
from typing import Any

import yaml
from command import tutelage, write_config

from curriculum.rundir import UNHASHED, file_hash


def make_fake_run(folder: Path, *settings: str) -> Path:
    """A finished run of the fake student: two rounds, both accepted, the second going on from the first."""
    done = tutelage("run", write_config(folder), "--name", "run", "--set", "training.start=accepted", *settings)
    assert done.code == 0, done.err
    return folder / "run"


def give_weights(run: Path, base: Path) -> None:
    """Makes the run one of the model in the folder `base`, with a random LoRA on it as its accepted adapter."""
    from student.base_model import base_hash

    student = {"engine": "transformers", "base": str(base)}
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["student"] |= student
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    edit(run / "run.json", lambda facts: facts["identity"]["student"].update(student))
    stage = next(run / "round_02" / made for made in ("merge", "train") if (run / "round_02" / made).exists())
    name = json.loads((stage / "adapter.json").read_text())["name"]
    (stage / name / "rows.json").unlink()
    make_adapter(base, stage / name, config["training"]["rank"])
    files = {p.name: file_hash(p) for p in sorted((stage / name).iterdir())}
    edit(stage / "adapter.json", lambda a: a.update(files=files, base=str(base), base_hash=base_hash(base)))
    outputs = {f"{name}/{file}": sha256 for file, sha256 in files.items()}
    outputs |= {path.name: file_hash(path) for path in stage.glob("*.json*") if path.name not in UNHASHED}
    edit(stage / "done.json", lambda done: done.update(outputs=outputs))


def make_adapter(base: Path, folder: Path, rank: int) -> None:
    """A random LoRA that changes the model's answers."""
    import torch
    from transformers import AutoModelForCausalLM

    from curriculum.training_config import TrainingConfig
    from student.lora import add_lora, save_adapter

    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        taught = add_lora(model, TrainingConfig(rank=rank), str(base))
        for parameter_name, parameter in taught.named_parameters():
            if "lora_B" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.3)
    folder.mkdir(parents=True, exist_ok=True)
    save_adapter(taught, folder)


def edit(path: Path, change: Any) -> None:
    """Rewrites a JSON document with a change made to it."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
