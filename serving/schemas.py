"""Bodies of requests and responses of the operations."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ImageInput(Strict):
    image: str = Field(description="an image file (PNG, JPEG, …) in base64")


Text = Annotated[str, Field(min_length=1)]
Pair = Annotated[list[Text], Field(min_length=2, max_length=2)]
Inputs = Annotated[list[Text | Pair | ImageInput], Field(min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1)]


class Classify(Strict):
    inputs: Inputs
    top_k: int | None = Field(None, ge=1, le=1000, description="classes per input")


class Label(BaseModel):
    label: str
    probability: float


class Predictions(BaseModel):
    predictions: list[list[Label]]


class Explain(Strict):
    inputs: Annotated[list[Text], Field(min_length=1, max_length=8)]


class Word(BaseModel):
    word: str
    start: int
    end: int
    weight: float = Field(description="fall of the probability when the word is removed")


class Explanation(Label):
    words: list[Word]


class Explanations(BaseModel):
    explanations: list[Explanation]


class Tag(Strict):
    inputs: Texts


class Entity(BaseModel):
    kind: str
    text: str
    start: int
    end: int
    probability: float


class Entities(BaseModel):
    entities: list[list[Entity]]


class Predict(Strict):
    inputs: Inputs


class Numbers(BaseModel):
    predictions: list[float]


class FillMask(Strict):
    inputs: Annotated[list[Text], Field(min_length=1, description="texts with [MASK]")]
    top_k: int = Field(5, ge=1, le=1000, description="tokens per mask")


class TokenProbability(BaseModel):
    token: str
    probability: float


class Masks(BaseModel):
    masks: list[list[list[TokenProbability]]]


class Generate(Strict):
    inputs: Annotated[list[str], Field(min_length=1)]
    max_new_tokens: int | None = Field(None, ge=1, description="200, or the limit if it is lower")
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False)
    top_k: int | None = Field(None, ge=1, description="1: greedy")
    top_p: float | None = Field(None, gt=0, le=1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0, allow_inf_nan=False)
    logit_bias: dict[int, float] | None = Field(None, description="by the number of a token")
    json_schema: dict[str, Any] | None = Field(None, description="answer in JSON of this schema")
    seed: int | None = Field(None, ge=0, lt=2**63)
    stop: Text | list[Text] | None = Field(None, description="end before one of these texts")
    chat_template: bool = Field(True, description="answer the inputs, where the model can chat")
    stream: bool = Field(False, description="send server-sent events")


class Generated(BaseModel):
    text: str
    finish_reason: Literal["stop", "length"]
    tokens: int
    prompt_tokens: int


class GeneratedTexts(BaseModel):
    outputs: list[Generated]


class Translate(Strict):
    inputs: Texts
    beam_size: int | None = Field(None, ge=1, le=16)
    length_penalty: float | None = Field(None, ge=0, le=10)


class Translations(BaseModel):
    translations: list[str]


class Embed(Strict):
    inputs: Texts


class Embeddings(BaseModel):
    embeddings: list[list[float]]


class Nearest(Strict):
    inputs: Texts
    number: int = Field(10, ge=1, le=100)


class Neighbor(BaseModel):
    word: str
    similarity: float


class Neighbors(BaseModel):
    neighbors: list[list[Neighbor]]


Words = Annotated[str, Field(min_length=1, pattern=r"\S")]


class Turn(Strict):
    question: Words
    answer: str


class Question(Strict):
    question: Words
    history: Annotated[list[Turn], Field(max_length=20)] = Field(
        [], description="earlier questions and answers of the conversation"
    )
    top_k: int | None = Field(None, ge=1, le=20, description="passages that are read")


class Citation(BaseModel):
    document: str
    start: int = Field(description="offset of the first character in the document")
    end: int
    text: str


class FoundPassage(Citation):
    heading: str
    score: float = Field(description="of the search; comparable within one answer only")


class Answered(BaseModel):
    answer: str
    citations: list[Citation]
    score: float = Field(description="probability that the documents answer the question")
    abstained: bool = Field(description="the answer is not in the documents")
    question: str = Field(description="the question that was searched")
    passages: list[FoundPassage]


class ModelNames(BaseModel):
    models: list[dict[str, Any]]


class FieldError(BaseModel):
    field: str
    message: str


class ProblemDocument(BaseModel):
    """An error, as in RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError] | None = None
