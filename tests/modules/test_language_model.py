"""LanguageModel: exact metrics and gradients, and no learning from noise."""

import math
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW
from torch.utils.data import DataLoader

import train
from datamodules.language_modeling.text_file import TextFile
from datamodules.text.tokenizers import character_tokenizer, train_bpe
from modules import LanguageModel
from modules.inference.pretrained import open_language_model
from modules.language_model import characters_per_token
from modules.nets import GPT, MLPLM, RNNLM, Bigram
from modules.optim.schedules import WarmupCosine
from preprocessing.special_tokens import IGNORE_INDEX
from tests.support import QUIET

V, T = 17, 8
GPT_SIZES = {"context": T, "num_layers": 2, "num_heads": 2, "dim": 32}
NETS = {
    "bigram": lambda: Bigram(V),
    "mlp": lambda: MLPLM(V, window=4, dim=16, hidden_size=64),
    "rnn": lambda: RNNLM(V, cell="rnn", dim=32),
    "lstm": lambda: RNNLM(V, cell="lstm", dim=32),
    "gru": lambda: RNNLM(V, cell="gru", dim=32),
    "gpt": lambda: GPT(V, **GPT_SIZES),
}
TEXT = "Der Künstler 漢字 😀 sagt, was ist; was ist, sagt er. " * 30


def trainer(**options) -> L.Trainer:
    return L.Trainer(**QUIET | {"accelerator": "cpu", "num_sanity_val_steps": 0} | options)


def batches(*pairs: tuple[Tensor, Tensor]) -> DataLoader:
    return DataLoader(list(pairs), batch_size=None)


def random_batch(rows: int, seed: int = 1, length: int = T) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(V, (rows, length + 1), generator=torch.Generator().manual_seed(seed))
    return tokens[:, :-1], tokens[:, 1:]


def validated(task: LanguageModel, loader: DataLoader) -> dict[str, float]:
    (metrics,) = trainer().validate(task, loader, verbose=False)
    return metrics


@pytest.fixture
def text(tmp_path):
    def make(**arguments) -> TextFile:
        (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
        data = TextFile([str(tmp_path / "text.txt")], **{"context": T, "batch_size": 4} | arguments)
        data.setup("fit")
        return data

    return make


@pytest.mark.parametrize("tokenizer", ["characters", "bpe"])
def test_val_metrics_do_not_depend_on_the_batch_size(text, tokenizer):
    torch.manual_seed(0)
    data = text(tokenizer=tokenizer, bpe_vocab_size=280)
    net = GPT(data.vocab_size, **GPT_SIZES)
    tokens = torch.from_numpy(data.val_tokens.astype("int64"))
    nats = 0.0
    with torch.no_grad():  # consecutive windows, as in SequentialWindows
        for start in range(0, len(tokens) - 1, T):
            window = tokens[start : start + T + 1]
            nats += F.cross_entropy(net(window[None, :-1])[0][0], window[1:], reduction="sum")
    loss = float(nats) / (len(tokens) - 1)
    characters = len(data.tokenizer.decode(tokens[1:].tolist()))
    assert (characters > len(tokens) - 1) == (tokenizer == "bpe")
    for batch_size in (1, 3, 64):
        data = text(tokenizer=tokenizer, bpe_vocab_size=280, batch_size=batch_size)
        task = LanguageModel(net, tokenizer=data.tokenizer_json)
        metrics = validated(task, data.val_dataloader())
        assert metrics["val/loss"] == pytest.approx(loss, rel=1e-5)
        assert metrics["val/perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
        bits = float(nats) / math.log(2) / characters
        assert metrics["val/bits_per_character"] == pytest.approx(bits, rel=1e-5)
    validated(task, data.train_dataloader())
    assert validated(task, data.val_dataloader()) == metrics  # the state is reset between runs


def test_characters_per_token_sum_to_the_length_of_the_text():
    for tokenizer in (character_tokenizer(TEXT), train_bpe([TEXT], 300)):
        lengths = characters_per_token(tokenizer)
        tokens = tokenizer.encode(TEXT).ids
        assert lengths[tokens].sum() == len(TEXT)
        assert len(lengths) == tokenizer.get_vocab_size()


def test_byte_tokens_of_sentencepiece_count_as_bytes():
    vocab = {"<unk>": 0, "\u2581To": 1, "\u2581b\u00aa": 2} | {
        f"<0x{n:02X}>": 3 + n for n in range(256)
    }
    tokenizer = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    tokens = [1, 3 + 0x0A, 3 + 0xC3, 3 + 0xA9, 2]  # " To", newline, é in two bytes, " bª"
    assert characters_per_token(tokenizer)[tokens].tolist() == [3, 1, 1, 0, 3]


def test_padding_does_not_change_the_metrics():
    torch.manual_seed(0)
    task = LanguageModel(GPT(V, **GPT_SIZES))
    inputs, targets = random_batch(4)
    padded = torch.cat([targets, torch.full((3, T), IGNORE_INDEX)])
    with_padding = validated(task, batches((torch.cat([inputs, random_batch(3, 9)[0]]), padded)))
    assert with_padding == pytest.approx(validated(task, batches((inputs, targets))), rel=1e-6)


def weights_after(loader: DataLoader, accumulate: int, **options) -> Tensor:
    torch.manual_seed(0)
    # With SGD the weights show the scale of the gradients; Adam would hide it.
    task = LanguageModel(GPT(V, **GPT_SIZES), optimizer=partial(SGD, lr=1.0))
    fit = {"max_epochs": 1, "accumulate_grad_batches": accumulate}
    trainer(**fit | options).fit(task, loader)
    return nn.utils.parameters_to_vector(task.parameters()).detach()


def with_uneven_padding(rows: int) -> tuple[Tensor, Tensor]:
    inputs, targets = random_batch(rows)
    targets = targets.clone()
    for row in range(rows):
        targets[row, 1 + row * (T - 1) // rows :] = IGNORE_INDEX
    return inputs, targets


@pytest.mark.parametrize("make", [random_batch, with_uneven_padding])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_accumulated_batches_equal_one_large_batch(make, clip):
    inputs, targets = make(16)
    parts = batches(*zip(inputs.split(4), targets.split(4), strict=True))
    expected = weights_after(batches((inputs, targets)), 1, gradient_clip_val=clip)
    accumulated = weights_after(parts, 4, gradient_clip_val=clip)
    torch.testing.assert_close(accumulated, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("make", [random_batch, with_uneven_padding])
def test_gradient_is_that_of_the_mean_over_all_tokens(make):
    inputs, targets = make(16)
    torch.manual_seed(0)
    net = GPT(V, **GPT_SIZES)
    F.cross_entropy(net(inputs)[0].flatten(0, 1), targets.flatten()).backward()  # lr 1
    expected = nn.utils.parameters_to_vector([p.detach() - p.grad for p in net.parameters()])
    parts = batches(*zip(inputs.split(4), targets.split(4), strict=True))
    torch.testing.assert_close(weights_after(parts, 4), expected, atol=1e-6, rtol=0)


def test_unequal_batches_and_a_short_accumulation_are_weighted_by_tokens():
    inputs, targets = random_batch(9)
    parts = [(inputs[:6], targets[:6]), (inputs[6:7], targets[6:7]), (inputs[7:], targets[7:])]
    expected = weights_after(batches((inputs, targets)), 1)
    torch.testing.assert_close(weights_after(batches(*parts), 4), expected, atol=1e-6, rtol=0)


def test_batch_of_padding_does_not_change_the_weights():
    inputs, targets = random_batch(2)
    torch.manual_seed(0)
    before = nn.utils.parameters_to_vector(GPT(V, **GPT_SIZES).parameters())
    padding_only = batches((inputs, torch.full_like(targets, IGNORE_INDEX)))
    assert torch.equal(weights_after(padding_only, 1, log_every_n_steps=1), before)


def test_logged_train_loss_is_the_mean_over_the_batch():
    torch.manual_seed(0)
    net = GPT(V, **GPT_SIZES)
    inputs, targets = with_uneven_padding(8)
    expected = F.cross_entropy(net(inputs)[0].flatten(0, 1), targets.flatten()).item()
    run = trainer(max_steps=1, log_every_n_steps=1)
    run.fit(LanguageModel(net), batches((inputs, targets)))
    assert run.callback_metrics["train/loss"].item() == pytest.approx(expected, rel=1e-6)


def test_only_matrices_decay():
    task = LanguageModel(GPT(V, **GPT_SIZES), optimizer=partial(AdamW, lr=0.1, weight_decay=0.3))
    decayed, free = task.configure_optimizers()["optimizer"].param_groups
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    for group, kinds in ((decayed, ("weight",)), (free, ("bias", "norm_1.weight", "norm"))):
        for parameter in group["params"]:
            name = names.pop(id(parameter))
            assert any(kind in name for kind in kinds), name
            assert (parameter.ndim >= 2) == (group is decayed), name
    assert not names


class Rates(L.Callback):
    def on_train_batch_start(self, trainer, *_) -> None:
        self.rates = [*getattr(self, "rates", []), trainer.optimizers[0].param_groups[0]["lr"]]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_warmup_cosine_counts_optimizer_steps(accumulate):
    task = LanguageModel(
        Bigram(V),
        optimizer=partial(SGD, lr=0.5),
        lr_scheduler=partial(WarmupCosine, warmup_steps=4, final_fraction=0.1),
    )
    recorder = Rates()
    loader = batches(*[random_batch(2)] * 6)  # the schedule continues across epochs
    options = {"max_steps": 20, "callbacks": [recorder], "accumulate_grad_batches": accumulate}
    trainer(**options).fit(task, loader)
    warmup = [0.5 * (t + 1) / 5 for t in range(4)]
    cosine = [0.5 * (0.1 + 0.9 * (1 + math.cos(math.pi * (t - 4) / 16)) / 2) for t in range(4, 20)]
    assert recorder.rates[::accumulate] == pytest.approx(warmup + cosine)
    assert recorder.rates[-1] > 0.05  # the minimum is reached after the last step


@pytest.mark.parametrize(
    "name", [n if n in ("bigram", "gpt") else pytest.param(n, marks=pytest.mark.slow) for n in NETS]
)
def test_every_net_overfits_one_batch(name):
    torch.manual_seed(0)
    if name == "bigram":  # each token determines the next one
        tokens = (torch.arange(T + 1) * 5 + torch.arange(4)[:, None]) % V
    else:
        tokens = torch.cat(random_batch(4), dim=1)[:, : T + 1].clone()
        tokens[:, 0] = torch.arange(4)
    pair = (tokens[:, :-1], tokens[:, 1:])
    lr = 0.3 if name == "bigram" else 0.01
    task = LanguageModel(NETS[name](), optimizer=partial(AdamW, lr=lr))
    trainer(max_epochs=1).fit(task, batches(*[pair] * 120))
    assert validated(task, batches(pair))["val/loss"] < 0.1


@pytest.mark.parametrize("name", NETS)
def test_loss_on_noise_is_not_below_the_entropy(name):
    torch.manual_seed(0)
    task = LanguageModel(NETS[name](), optimizer=partial(AdamW, lr=0.01))
    trainer(max_epochs=1).fit(task, batches(*[random_batch(16, seed) for seed in range(60)]))
    metrics = validated(task, batches(*[random_batch(64, seed) for seed in range(1000, 1008)]))
    # 4096 unseen tokens: the standard error of the mean is about 0.3 / sqrt(4096) = 0.005.
    assert metrics["val/loss"] > math.log(V) - 0.015


def test_checkpoint_of_a_python_script_generates_text(text, tmp_path):
    torch.manual_seed(0)
    data = text(tokenizer="bpe", bpe_vocab_size=300)
    net = GPT(data.vocab_size, **GPT_SIZES)
    task = LanguageModel(net, tokenizer=data.tokenizer_json)
    fit = trainer(max_steps=2)
    fit.fit(task, data)
    fit.save_checkpoint(tmp_path / "model.ckpt")
    for loaded in (
        LanguageModel.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True),
        open_language_model(tmp_path / "model.ckpt"),
    ):
        assert loaded.decode(loaded.encode(TEXT)) == TEXT
        assert loaded.generate("Der", 20, seed=1) == task.generate("Der", 20, seed=1)


def test_checkpoint_of_the_command_line_generates_text(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    folder = train.main(
        [
            *("fit", "--runs_dir", str(tmp_path / "runs"), "--test_after_fit", "false"),
            *("--model", "modules.LanguageModel", "--model.net", "modules.nets.GPT"),
            *("--model.net.num_layers", "1", "--model.net.num_heads", "2"),
            *("--model.net.dim", "8", "--data", "datamodules.TextFile"),
            *("--data.files", f"['{tmp_path}/text.txt']", "--data.context", "8"),
            *("--data.batch_size", "4", "--trainer.max_steps", "3"),
            *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
        ]
    )
    model = open_language_model(Path(folder) / "checkpoints" / "last.ckpt")
    assert model.net.context == 8
    assert model.decode(model.encode(TEXT)) == TEXT
    assert len(model.generate("Der", 20, seed=1)) == 20
