"""Typical wrong solutions of day 20."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "CharacterLSTM",
        "self.lstm(self.embedding(tokens), state)",
        "self.lstm(self.embedding(tokens))",
        "pass the state",
    ),
    Mistake("CharacterLSTM", "(h.detach(), c.detach())", "(h, c)", "detach the state"),
    Mistake(
        "CharacterLSTM", "width, width, layers, batch_first=True", "width, width, layers", "logits"
    ),
    Mistake("nucleus", "before < top_p", "before + ordered <= top_p", "token that crosses"),
    Mistake("nucleus", "kept / kept.sum(-1, keepdim=True)", "kept", "normalize the kept"),
    Mistake("generate", "net(tokens, state)", "net(tokens)", "state of the step before"),
    Mistake("generate", "net.eval()", "pass", "net.eval()"),
    Mistake("generate", "logits[:, -1]", "logits[:, 0]", "last position"),
]
