"""Settings of the server: flags, environment variables (STEPLADDER_…) and a YAML file."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

LOOPBACK = ("127.0.0.1", "::1", "localhost")
Texts = Annotated[list[str], NoDecode]  # an environment variable holds them separated by commas


class Settings(BaseSettings):
    """Settings of the server; flags have priority over the environment, and that over YAML."""

    model_config = SettingsConfigDict(env_prefix="STEPLADDER_", extra="forbid")

    checkpoint: Texts = Field(
        [], description="checkpoint, model folder, package:NAME, models:/NAME@ALIAS; repeatable"
    )
    name: Texts = Field([], description="names of the models, in the order of the checkpoints")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, lt=2**16, description="port; 0 chooses a free one")
    runtime: Literal["torch", "onnxruntime"] = Field(
        "torch", description="onnxruntime requires folders written by export.py --format onnx"
    )
    devices: Texts = Field(
        ["auto"], description="one worker process is started on each; auto: the fastest device"
    )
    threads: int | None = Field(None, ge=1, description="CPU threads of a worker")
    data_dir: Path = Field(Path("data"), description="folder in which relative sources are found")
    runs_dir: Path = Field(Path("runs"), description="folder of runs, without --checkpoint")

    rag: Path | None = Field(None, description="index of rag.py, for questions to /v1/answer")
    rag_reader: Path | None = Field(
        None, description="checkpoint of a modules.SpanReader: answers are parts of passages"
    )
    rag_generator: str | None = Field(
        None, description="language model that writes the answers, or address of OpenAI's API"
    )
    rag_model: str = Field("default", description="name of the generator at an address")
    rag_passages: int = Field(5, ge=1, le=20, description="passages that are read by default")
    rag_threshold: float | None = Field(
        None, ge=0, le=1, description="smallest score of an answer; else that of the calibration"
    )
    rag_calibration: Path | None = Field(None, description="file written by rag.py evaluate")

    guard: Path | None = Field(
        None, description="checkpoint of a guard: harmful prompts and outputs are refused"
    )
    guard_threshold: float | None = Field(
        None, ge=0, le=1, description="probability of harm; else that of its calibration"
    )

    registry_uri: str | None = Field(
        None, description="MLflow server or database of models:/NAME@ALIAS (MLFLOW_TRACKING_URI)"
    )
    registry_seconds: float = Field(
        10.0, ge=0.1, description="seconds after which an alias is resolved again"
    )

    batch_tokens: int | None = Field(
        None,
        ge=1,
        description="tokens of a batch, including padding; an image counts as its pixels / 64 "
        "(default: 2048, for onnxruntime 256)",
    )
    batch_size: int = Field(64, ge=1, description="samples of a batch")
    slots: int = Field(8, ge=1, description="texts that are generated at the same time")
    queue_size: int = Field(512, ge=1, description="samples that may wait; beyond: 429")
    deadline: float = Field(60.0, gt=0, description="seconds for a request; beyond: 504")
    drain_seconds: float = Field(
        0.0, ge=0, description="seconds between losing readiness and closing the port"
    )
    drain_timeout: float = Field(60.0, gt=0, description="seconds to finish accepted requests")

    max_body: int = Field(16 * 2**20, ge=1, description="bytes of a request")
    max_items: int = Field(64, ge=1, description="inputs of a request")
    max_characters: int = Field(50_000, ge=1, description="characters of a text")
    max_pixels: int = Field(16_000_000, ge=1, description="pixels of an image")
    max_new_tokens: int = Field(2048, ge=1, description="tokens generated for one input")

    keys_file: Path | None = Field(None, description="file of API keys, see docs/serving.md")
    rate_limit: float | None = Field(None, gt=0, description="requests per second and key")
    log_file: Path | None = Field(None, description="JSON lines of requests; stderr by default")
    samples_file: Path | None = Field(
        None, description="JSON lines of inputs and results for scripts.monitor; not by default"
    )
    samples_fraction: float = Field(
        0.1, ge=0, le=1, description="share of the requests in --samples_file"
    )

    @field_validator("checkpoint", "name", "devices", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part for part in value.split(",") if part] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> "Settings":
        if self.name and len(self.name) != len(self.checkpoint):
            raise ValueError(
                f"{len(self.checkpoint)} checkpoints have {len(self.name)} names; repeat --name "
                "for each --checkpoint, in the same order"
            )
        if self.keys_file is None and self.host not in LOOPBACK:
            raise ValueError(
                f"without --keys_file the server listens on the loopback address only, not on "
                f"{self.host}; create API keys as described in docs/serving.md"
            )
        if self.rag_reader is not None and self.rag_generator is not None:
            raise ValueError("--rag_reader and --rag_generator exclude each other: choose one")
        return self

    def answering(self) -> dict[str, Any]:
        """Return how questions about documents are answered, as plain values."""
        paths = {"reader": self.rag_reader, "calibration": self.rag_calibration}
        return {
            "generator": self.rag_generator,
            "model": self.rag_model,
            "passages": self.rag_passages,
            "threshold": self.rag_threshold,
            **{name: path and str(path.expanduser()) for name, path in paths.items()},
        }

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *args: Any, **sources: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the file of `model_config["yaml_file"]`."""
        yaml = YamlConfigSettingsSource(settings_cls)
        return sources["init_settings"], sources["env_settings"], yaml


def read_settings(flags: dict[str, Any], config: Path | None = None) -> Settings:
    """Return the settings from flags, the environment and a YAML file.

    Raises:
        pydantic.ValidationError: If a value is not valid or a key of the file is unknown.
    """
    sources = SettingsConfigDict(**Settings.model_config | {"yaml_file": config})

    class Configured(Settings):
        model_config = sources

    return Configured(**flags)
