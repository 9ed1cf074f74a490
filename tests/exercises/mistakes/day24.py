"""Typical wrong solutions of day 24."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "gpt_parameters",
        "0 if tied else vocab_size * width",
        "vocab_size * width",
        "no parameters of its own",
    ),
    Mistake("gpt_parameters", "+ 2 * width + output", "+ output", "last layer norm"),
    Mistake("gpt_parameters", "(vocab_size + context)", "vocab_size", "position embedding"),
    Mistake("gelu", "(x + 0.044715 * x**3)", "x", "cubic term"),
    Mistake(
        "gelu",
        "0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))",
        "F.gelu(x)",
        "not erf",
    ),
    Mistake("cached_attention", "tril(total - new)", "tril()", "shift the mask"),
    Mistake(
        "cached_attention", 'masked_fill(~allowed, float("-inf"))', "clone()", "later new ones"
    ),
    Mistake("cached_attention", "if cache is not None", "if False", "cached keys"),
    Mistake(
        "language_model_loss",
        "logits[:, :-1].flatten(0, 1), tokens[:, 1:]",
        "logits.flatten(0, 1), tokens",
        "predict token t + 1",
    ),
    Mistake(
        "language_model_loss",
        "logits[:, :-1].flatten(0, 1), tokens[:, 1:]",
        "logits[:, 1:].flatten(0, 1), tokens[:, :-1]",
        "wrong direction",
    ),
    Mistake(
        "next_token_probabilities", "best / temperature", "best * temperature", "do not multiply"
    ),
    Mistake("next_token_probabilities", 'float("-inf")', "0.0", "not 0"),
    Mistake(
        "next_token_probabilities", "if temperature == 0", "if temperature < 0", "treat it apart"
    ),
]
