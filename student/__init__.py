"""The model edge: base models, the engine that answers, the chat format, the LoRA trainer."""
