"""Typical wrong solutions of day 27."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "fused_projection",
        "part.unflatten(-1, (num_heads, -1)).transpose(1, 2)",
        "part.reshape(len(x), num_heads, x.shape[1], -1)",
        "transpose after the reshape",
    ),
    Mistake("fused_projection", " + bias", "", "bias is missing"),
    Mistake("initialize", "0.02 / (2 * layers) ** 0.5", "0.02", "where a block adds"),
    Mistake("initialize", "(2 * layers) ** 0.5", "layers**0.5", "adds twice"),
    Mistake("initialize", "nn.Linear | nn.Embedding", "nn.Linear", "PyTorch's default"),
    Mistake("generate", "tokens[:, -context:]", "tokens", "crop to the last"),
    Mistake("generate", "tokens[:, -context:]", "tokens[:, :context]", "not the first"),
    Mistake(
        "load_gpt2",
        '("c_attn.weight", "c_proj.weight", "c_fc.weight")',
        '"c_attn.weight"',
        "square matrix",
    ),
    Mistake(
        "load_gpt2",
        'if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))',
        "if value.ndim == 2",
        "not embeddings",
    ),
    Mistake(
        "load_gpt2",
        "if value.shape != parameter.shape",
        "if False",
        "ValueError if ln.weight has another shape",
    ),
]
