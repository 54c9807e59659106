"""ExportConfig: in which files a model leaves."""

from typing import Literal

from pydantic import Field

from mypt.records.base import Record

ExportFormat = Literal["hf", "gguf"]


class ExportConfig(Record, frozen=True):
    """What an export is to be."""

    to: ExportFormat = Field("hf", description="hf: a folder for transformers and others; gguf: a file for llama.cpp.")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="Of the weights in it: fp32, bf16 or fp16.")

    def usual_name(self, model_name: str) -> str:
        """What an export is called where nobody says it."""
        return f"{model_name}-hf" if self.to == "hf" else f"{model_name}.gguf"
