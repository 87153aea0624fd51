"""The config's section for `tutelage forecast`: what it is told of a model and a machine that are not here."""

from pydantic import Field

from curriculum.data_config import Section


class ModelSizes(Section):
    """A causal language model's sizes, under the names of its `config.json`."""

    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0, description="of the gated feed-forward layer")
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int | None = Field(default=None, gt=0, description="null: as many as attention heads")
    head_dim: int | None = Field(default=None, gt=0, description="null: hidden_size / num_attention_heads")
    vocab_size: int = Field(gt=0)
    tie_word_embeddings: bool = Field(default=False, description="whether the output layer is the embedding")

    @property
    def head_size(self) -> int:
        """Numbers in one head's query, key or value."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def query_size(self) -> int:
        """Numbers in all queries of a token."""
        return self.num_attention_heads * self.head_size

    @property
    def key_size(self) -> int:
        """Numbers in all keys of a token; as many are in its values."""
        return (self.num_key_value_heads or self.num_attention_heads) * self.head_size


class ForecastConfig(Section):
    """For forecasts made before the model or the GPU is there; the run itself does not read it."""

    base_sizes: ModelSizes | None = Field(
        default=None, description="of student.base, from its config.json; used while that file is not on this machine"
    )
    gpu_memory_gib: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="of one GPU; null looks for GPUs with nvidia-smi"
    )
    published: list[str] = Field(
        default=[], description="what others report of this setting, a sentence each; printed as theirs"
    )
