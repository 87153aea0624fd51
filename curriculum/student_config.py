"""The sections of a config on the student: which model, who serves it, how it is asked."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from curriculum.addresses import check_url
from curriculum.data_config import OPERATIONAL, Section
from curriculum.difficult import Method
from curriculum.records import Sampling


class Shot(Section):
    """An example in the prompt of the few-shot base."""

    question: str = Field(min_length=1, max_length=20_000)
    answer: str = Field(min_length=1, max_length=20_000, description="word for word, `Answer: …` line included")


class VllmConfig(Section):
    """The vLLM server: started and stopped by the run, or one that is running."""

    urls: tuple[str, ...] = Field(
        default=(),
        description="addresses of running servers, such as http://127.0.0.1:8000; empty starts one. "
        "Their key is read from the environment: VLLM_API_KEY",
        json_schema_extra=OPERATIONAL,
    )
    concurrency: int = Field(
        default=64, gt=0, le=4096, json_schema_extra=OPERATIONAL,
        description="answers that a server computes at once; twice as many are asked for, so that none of its places "
        "is empty",
    )  # fmt: skip
    start_seconds: int = Field(
        default=900, gt=0, description="wait at most so long for a server", json_schema_extra=OPERATIONAL
    )
    adapters: Literal["auto", "merged", "runtime"] = Field(
        default="auto",
        description="a merged checkpoint is served anew, or the adapter is loaded into the running server; auto loads "
        "it where there is a GPU or the server is not ours",
    )
    max_lora_rank: int = Field(
        default=1,
        gt=0,
        le=512,
        description="rank that a server which loads adapters keeps room for, at least; training.rank always fits, and "
        "a soup of higher rank is brought back to what fits",
    )
    max_length: int = Field(default=4096, gt=0, description="most tokens of prompt and answer; the model's limit holds")
    kv_cache_gib: float = Field(
        default=1.0, gt=0, description="memory for keys and values on a CPU", json_schema_extra=OPERATIONAL
    )
    gpu_memory: float = Field(
        default=0.9, gt=0, le=1, description="share of a GPU's memory that the server may take",
        json_schema_extra=OPERATIONAL,
    )  # fmt: skip
    sleep: bool = Field(
        default=False,
        description="on a GPU a server of ours sleeps while the student trains, instead of ending: it is there again "
        "in seconds, but its weights wait in the machine's memory, and a little of the GPU's stays taken",
        json_schema_extra=OPERATIONAL,
    )
    tensor_parallel: int = Field(default=1, gt=0, description="GPUs a model is spread over")
    data_parallel: int = Field(default=1, gt=0, description="copies of the model, each on GPUs of its own")

    @model_validator(mode="after")
    def _addresses(self) -> "VllmConfig":
        # Here and not in the field's own check, whose message would repeat what may hold a secret.
        for url in self.urls:
            check_url(url, "student.vllm.urls", path=False)
        return self

    @model_validator(mode="after")
    def _own_server_sleeps(self) -> "VllmConfig":
        if self.sleep and self.urls:
            raise ValueError("student.vllm.sleep is for a server of ours: leave it out, or student.vllm.urls")
        return self


class SignalsConfig(Section):
    """Several drawn answers an item: how hard it is for this student."""

    samples: int = Field(ge=2, le=64, description="answers drawn to each probe item each round")
    temperature: float = Field(default=1.0, gt=0, description="of these draws; student.temperature is for verdicts")
    difficulty: Literal["declared", "measured"] = Field(
        default="declared",
        description="measured: pool and probe items whose data declare no difficulty get that of the base's samples",
    )


class RewardConfig(Section):
    """A process reward model: it scores each step of an answer with + or -."""

    model: str = Field(min_length=1, description="Hub name or local folder; with base_url the server's name for it")
    revision: str | None = Field(default=None, description="Hub revision; null takes the newest")
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    base_url: str | None = Field(
        default=None,
        description="of a server with an OpenAI-compatible chat API and log-probabilities; null loads the model here. "
        "Its key, if it wants one, is read from the environment: REWARD_API_KEY",
        json_schema_extra=OPERATIONAL,
    )
    concurrency: int = Field(
        default=8, gt=0, le=256, description="answers scored at once", json_schema_extra=OPERATIONAL
    )
    tau1: float = Field(default=0.85, ge=0, le=1, description="difficult: last step or mean at most this")
    tau2: float = Field(default=0.7, ge=0, le=1, description="difficult: an earlier step at most this")

    @model_validator(mode="after")
    def _address(self) -> "RewardConfig":
        if self.base_url is not None:
            check_url(self.base_url, "student.reward.base_url")
        return self


class StudentConfig(Section):
    """The model that is taught, and how it is asked."""

    base: str = Field(default="smollm2-135m", min_length=1, description="`smollm2-135m`, a Hub name, or a local folder")
    revision: str | None = Field(default=None, description="Hub revision; null takes the newest")
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    quantise: Literal["nf4"] | None = Field(
        default=None,
        description="keep the base in 4 bits (QLoRA), by bitsandbytes; answered for by the transformers engine alone. "
        "Exports and forecasts of memory are of the whole weights",
    )
    engine: Literal["auto", "vllm", "transformers", "fake"] = Field(
        default="auto",
        description="who answers: auto is vllm where there is a GPU and vllm is installed, else transformers; a new "
        "run writes down which. `fake` answers from a table and trains nothing: for tests of the loop",
    )
    vllm: VllmConfig = VllmConfig()
    prompt: str = Field(
        default="student_answer",
        description="prompt file in prompts/: student_answer, or student_solve for worked solutions",
    )
    system_prompt: str | None = Field(
        default=None, max_length=20_000, description="text of the system prompt instead of `prompt`; empty for none"
    )
    system_prompt_file: Path | None = Field(
        default=None, description="UTF-8 file with that text instead, relative to the current directory"
    )
    max_new_tokens: int = Field(default=64, gt=0, le=10**9, description="tokens; enough to finish an answer")
    temperature: float = Field(default=0.0, ge=0, description="0 is greedy: no chance in answers")
    top_p: float = Field(default=1.0, gt=0, le=1, description="share of the probability that tokens are drawn from")
    sampling_seed: int | None = Field(default=None, ge=0, lt=2**32, description="null takes `seed`")
    signals: SignalsConfig | None = Field(
        default=None, description="pass rate and entropy of drawn answers, in the profile; null draws none"
    )
    difficult: Method = Field(
        default="gold",
        description="which probe questions are difficult, and diagnosed: by gold, those not answered right; by "
        "disagreement, those with five drawn answers that all differ; by prm, a process reward model, those whose "
        "steps have low scores. Questions without a gold answer go by disagreement",
    )
    reward: RewardConfig | None = Field(default=None, description="for `difficult: prm`")
    few_shot: int = Field(default=4, ge=0, description="pool examples shown to the few-shot base at the end")
    few_shot_examples: tuple[Shot, ...] | None = Field(
        default=None, min_length=1, max_length=64, description="shown to the few-shot base instead, in this order"
    )
    batch_size: int = Field(default=32, gt=0, le=100_000, description="answers decoded together")
    threads: int = Field(
        default=2, gt=0, le=1024, description="of the CPU; part of the identity: they change roundings"
    )

    @model_validator(mode="after")
    def _one_system_prompt(self) -> "StudentConfig":
        if self.system_prompt is not None and self.system_prompt_file is not None:
            raise ValueError("student.system_prompt and student.system_prompt_file exclude each other: give one")
        return self

    @model_validator(mode="after")
    def _quantised_here(self) -> "StudentConfig":
        if self.quantise is not None and (self.engine == "vllm" or self.vllm.urls):
            raise ValueError(
                "`student.quantise` goes with `student.engine: transformers`: a vLLM server would answer with other "
                "weights than those trained on"
            )
        return self

    @model_validator(mode="after")
    def _reward_is_used(self) -> "StudentConfig":
        if (self.difficult == "prm") != (self.reward is not None):
            raise ValueError("`student.reward` goes with `student.difficult: prm`: give both or neither")
        return self

    def sampling(self, run_seed: int) -> Sampling:
        """How answers are decoded in a run with this seed."""
        seed = run_seed if self.sampling_seed is None else self.sampling_seed
        return Sampling(max_new_tokens=self.max_new_tokens, temperature=self.temperature, top_p=self.top_p, seed=seed)

    def drawn(self, run_seed: int, signals: SignalsConfig) -> Sampling:
        """How the answers of `signals` are decoded: from the whole distribution."""
        return self.sampling(run_seed).model_copy(update={"temperature": signals.temperature, "top_p": 1.0})
