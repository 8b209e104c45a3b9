"""The model that scores rows, and which of its gradients."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, FiniteFloat, model_validator

from app.core.contracts.schema import Name, Request, Storable, Text


def _not_half(value: object) -> object:
    if value == "float16":
        raise ValueError(
            "gradients underflow in float16 without loss scaling: use bfloat16, which has the same size and the "
            "range of float32, or float32"
        )
    return value


class ModelRef(Request):
    """The proxy model that scores the data."""

    uri: Text = Field(
        description="A saved model (config, tokenizer, safetensors weights): `file:///directory`, "
        "`s3://bucket/prefix`, or `hf://org/name@commit` on the hub; or a GGUF file by `file://` or `s3://`."
    )
    dtype: Annotated[Literal["float32", "bfloat16"], BeforeValidator(_not_half)] = "float32"
    max_length: int = Field(default=512, ge=2, le=131_072, description="Tokens of a row; longer rows are cut.")
    devices: Literal["one", "all"] = Field(
        default="one",
        description="`all`: the blocks are spread over all GPUs of a worker, for a model larger than one of them.",
    )
    chat_template: Name | None = Field(
        default=None,
        description="Which of the tokenizer's chat templates, where it has several; left out: `default`, and "
        "`tool_use` for rows with tools.",
    )


class AdapterRef(Request):
    """A LoRA adapter that PEFT saved."""

    uri: Text = Field(
        description="`file://` directory with adapter_config.json and adapter_model.safetensors, of plain LoRA on "
        "linear layers."
    )


LayerName = Annotated[str, Field(min_length=1, max_length=200), Storable]


class Gradients(Request):
    """Whose gradients, and how small they are made."""

    target: Literal["lora", "linear", "last_layer"] = Field(
        default="lora",
        description="`lora`: an adapter on the linear layers of the blocks; `linear`: these layers' own weights; "
        "`last_layer`: the output head's.",
    )
    rank: int = Field(default=8, ge=1, le=256, description="Rank of a fresh adapter.")
    layers: tuple[LayerName, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="Which linear layers, by the last parts of their names (`q_proj`, `layers.3.mlp.down_proj`) or by "
        "patterns with `*`, `?` and `[...]` (`layers.1?.mlp.*`); left out: all of them.",
    )
    adapter: AdapterRef | None = Field(
        default=None, description="A trained adapter to take the gradients of; left out: a fresh one."
    )
    warmup_steps: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="Steps, of 8 rows each, that a fresh adapter is trained for before rows are scored.",
    )
    warmup_learning_rate: FiniteFloat = Field(default=2e-4, gt=0, le=1, description="Of Adam, in these steps.")
    preconditioner: Literal["none", "adam"] = Field(
        default="none",
        description="`adam`: divide every entry of a gradient by the root of its second moment, as Adam does.",
    )
    sketch_dim: int = Field(default=2048, ge=1, le=65_536, description="Length p of a gradient sketch.")
    seed: int = Field(default=0, ge=0, lt=2**63)
    loss_normalization: Literal["sum", "mean"] = Field(
        default="sum", description="Loss of a row: summed over its response tokens, or their mean."
    )
    loss_over: Literal["response", "row"] = Field(
        default="response",
        description="Which tokens' losses are differentiated: those of the response, or of the whole row, its prompt "
        "included. `row` leaves `prompt_effect` off, which is of responses.",
    )
    prompt_effect: bool = Field(
        default=True,
        description="Also take each response's loss without its prompt, by one forward pass over the responses alone: "
        "`ifd`, the loss with the prompt over the loss without it, tells rows whose prompt does not help.",
    )
    store: Literal["float32", "float16"] = Field(
        default="float32",
        description="Precision of the sketches on disk. `float16` takes half the space; each sketch has a scale of its "
        "own, so that three digits stay whatever its length.",
    )

    @model_validator(mode="before")
    @classmethod
    def _normalize_has_moved(cls, given: object) -> object:
        if isinstance(given, dict) and "normalize" in given:
            raise ValueError("normalize is a setting of the selection: send it as selection.normalize")
        return given

    @model_validator(mode="before")
    @classmethod
    def _whole_rows_have_no_prompt_effect(cls, given: object) -> object:
        if isinstance(given, dict) and given.get("loss_over") == "row":
            return {"prompt_effect": False, **given}
        return given

    @model_validator(mode="after")
    def _prompts_apart(self) -> Self:
        if self.loss_over == "row" and self.prompt_effect:
            raise ValueError("prompt_effect is of responses, and loss_over is 'row': set it to false, or leave it out")
        return self

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if self.target == "last_layer" and self.layers is not None:
            raise ValueError(
                "layers chooses among the blocks' linear layers, and target 'last_layer' is the output head"
            )
        if self.target != "lora" and self.adapter is not None:
            raise ValueError(f"adapter belongs to target 'lora', and the target is {self.target!r}")
        if self.target != "lora" and self.warmup_steps:
            raise ValueError(f"warmup_steps trains an adapter: use target 'lora' instead of {self.target!r}")
        if self.adapter is not None and self.warmup_steps:
            raise ValueError("warmup_steps trains a fresh adapter: leave it out, or leave adapter out")
        return self
