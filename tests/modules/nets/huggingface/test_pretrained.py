"""Networks of transformers: outputs equal to the library's, checkpoints that suffice, bad input."""

import json
import shutil
from pathlib import Path

import lightning as L
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch._dynamo.utils import counters

import train
from datamodules import TextTable
from datamodules.text.tokenizers import train_bpe
from modules import Classifier, LanguageModel
from modules.inference.generation import generate
from modules.inference.sampling import Sampling
from modules.nets import (
    PretrainedCausalLM,
    PretrainedClassifier,
    PretrainedEncoder,
    PretrainedTokenClassifier,
)
from tests.support import ROOT
from tests.support.huggingface import (
    CONFIGS,
    DECODERS,
    ENCODERS,
    VOCAB_SIZE,
    make_model,
    make_tokenizer,
    save_model,
)
from tests.support.resume import Crash, assert_same_run, crash_after

B, T = 3, 9
LORA = ("--config", ROOT / "configs/adapter/lora.yaml", "--model.adapter.rank", 2)


def make_inputs(padding: int = 4) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, VOCAB_SIZE, (B, T))
    mask = torch.ones(B, T, dtype=torch.bool)
    mask[1, T - padding :] = False
    ids[~mask] = 0
    return {"input_ids": ids, "attention_mask": mask}


def reference_inputs(model, inputs):
    """Padding as the model's own tokenizer would write it."""
    ids = inputs["input_ids"].masked_fill(~inputs["attention_mask"], model.config.pad_token_id or 0)
    return {"input_ids": ids, "attention_mask": inputs["attention_mask"].long()}


@pytest.mark.parametrize("kind", [*ENCODERS, *DECODERS])
def test_classifier_equals_transformers(tmp_path, kind):
    theirs = make_model(kind, "AutoModelForSequenceClassification", num_labels=3, pad_token_id=1)
    net = PretrainedClassifier(3, str(save_model(tmp_path / kind, theirs)), dropout=0.0)
    inputs = make_inputs()
    expected = theirs(**reference_inputs(theirs, inputs)).logits
    torch.testing.assert_close(net(inputs), expected)
    assert net.training


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoder_and_token_classifier_equal_transformers(tmp_path, kind):
    theirs = make_model(kind, "AutoModelForTokenClassification", num_labels=5)
    folder = str(save_model(tmp_path / kind, theirs))
    inputs = make_inputs()
    tagger = PretrainedTokenClassifier(5, folder, dropout=0.0)
    encoder = PretrainedEncoder(folder, dropout=0.0)
    expected = theirs(**reference_inputs(theirs, inputs), output_hidden_states=True)
    real = inputs["attention_mask"]
    torch.testing.assert_close(tagger(inputs)[real], expected.logits[real])
    torch.testing.assert_close(encoder(inputs)[real], expected.hidden_states[-1][real])
    assert (encoder.dim, encoder.vocab_size) == (16, VOCAB_SIZE)


def test_second_texts_have_another_token_type(tmp_path):
    theirs = make_model("bert", "AutoModelForSequenceClassification", num_labels=2)
    net = PretrainedClassifier(2, str(save_model(tmp_path / "bert", theirs)), dropout=0.0)
    types = (torch.arange(T) > 4).long().expand(B, T)
    inputs = make_inputs() | {"token_type_ids": types}
    expected = theirs(**reference_inputs(theirs, inputs), token_type_ids=types).logits
    torch.testing.assert_close(net(inputs), expected)
    without = net({name: inputs[name] for name in ("input_ids", "attention_mask")})
    assert not torch.allclose(net(inputs), without)


@pytest.mark.parametrize("kind", DECODERS)
def test_causal_model_equals_transformers_and_its_cached_generation(tmp_path, kind):
    theirs = make_model(kind, "AutoModelForCausalLM")
    net = PretrainedCausalLM(str(save_model(tmp_path / kind, theirs)), dropout=0.0).eval()
    tokens = make_inputs()["input_ids"][:1]
    logits, state = net(tokens)
    assert state is None
    torch.testing.assert_close(logits, theirs(tokens).logits)
    state = net.init_state(1)
    pieces = [net(piece, state)[0] for piece in tokens.split([4, 1, T - 5], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), logits)
    expected = theirs.generate(tokens, max_new_tokens=8, do_sample=False, eos_token_id=None)
    found = [step[0] for step in generate(net, tokens.tolist(), 8, Sampling(top_k=1))]
    assert found == expected[0, T:].tolist()


@pytest.mark.parametrize("kind", DECODERS)
def test_packed_documents_do_not_attend_to_each_other(tmp_path, kind):
    folder = save_model(tmp_path / kind, make_model(kind, "AutoModelForCausalLM"))
    net = PretrainedCausalLM(str(folder), dropout=0.0).eval()
    first, second = torch.randint(VOCAB_SIZE, (1, 4)), torch.randint(VOCAB_SIZE, (1, 5))
    documents = torch.tensor([[0] * 4 + [1] * 5])
    packed, _ = net(torch.cat([first, second], dim=1), None, documents)
    torch.testing.assert_close(packed[:, :4], net(first)[0])
    torch.testing.assert_close(packed[:, 4:], net(second)[0])
    with pytest.raises(ValueError, match="cannot be combined with a state"):
        net(first, net.init_state(1), documents[:, :4])


def test_context_limits_causal_models(tmp_path):
    folder = save_model(tmp_path / "llama", make_model("llama", "AutoModelForCausalLM"))
    net = PretrainedCausalLM(str(folder), context=8)
    state = net.init_state(1)
    net(torch.zeros(1, 8, dtype=torch.int64), state)
    with pytest.raises(ValueError, match="context of this network is 8 tokens, got 8 \\+ 1"):
        net(torch.zeros(1, 1, dtype=torch.int64), state)


def test_attention_is_chosen_and_gives_equal_logits(tmp_path):
    folder = str(save_model(tmp_path / "bert", make_model("bert", "AutoModel")))
    torch.manual_seed(0)
    plain = PretrainedClassifier(2, folder).eval()
    eager = PretrainedClassifier(2, config=plain.config, attention="eager").eval()
    eager.load_state_dict(plain.state_dict())
    assert plain.model.config._attn_implementation == "sdpa"
    assert eager.model.config._attn_implementation == "eager"
    inputs = make_inputs()
    torch.testing.assert_close(eager(inputs), plain(inputs))


def test_gradient_checkpointing_gives_equal_gradients(tmp_path):
    folder = str(
        save_model(tmp_path / "bert", make_model("bert", "AutoModelForSequenceClassification"))
    )
    inputs, gradients = make_inputs(), []
    for checkpointing in (False, True):
        net = PretrainedClassifier(2, folder, dropout=0.0, gradient_checkpointing=checkpointing)
        net(inputs).square().sum().backward()
        assert net.model.is_gradient_checkpointing == checkpointing
        gradients.append({n: p.grad for n, p in net.named_parameters() if p.grad is not None})
    torch.testing.assert_close(gradients[1], gradients[0])


def test_dropout_of_all_layers_is_set(tmp_path):
    folder = save_model(tmp_path / "m", make_model("bert", "AutoModelForSequenceClassification"))
    net = PretrainedClassifier(2, str(folder), dropout=0.25)
    found = [m.p for m in net.modules() if isinstance(m, torch.nn.Dropout)]
    assert found
    assert set(found) == {0.25}


@pytest.mark.parametrize("made_in", ["python", "command line"])
def test_checkpoint_needs_no_source(tmp_path, run, made_in):
    theirs = make_model("bert", "AutoModelForSequenceClassification", num_labels=2)
    folder = save_model(tmp_path / "source", theirs)
    if made_in == "python":
        task = Classifier(PretrainedClassifier(2, str(folder)), num_classes=2)
        trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        trainer.strategy.connect(task)
        trainer.save_checkpoint(checkpoint := tmp_path / "model.ckpt")
    else:
        checkpoint = run(*fine_tune(tmp_path, folder)) / "checkpoints/last.ckpt"
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    task = Classifier.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
    saved = torch.load(checkpoint, weights_only=True)
    assert "pretrained" not in saved["hyper_parameters"]["net"]["init_args"]
    for name, weight in task.state_dict().items():
        assert torch.equal(weight, saved["state_dict"][name]), name
    assert task.net.model.config.hidden_size == 16


def fine_tune(tmp_path: Path, folder: Path, *arguments: object) -> tuple[object, ...]:
    rows = "".join(f"{'very ' * (n % 5)}{('good', 'bad')[n % 2]} film,{n % 2}\n" for n in range(60))
    (tmp_path / "texts.csv").write_text(f"text,label\n{rows}")
    return (
        *(
            "fit",
            "--model",
            "modules.Classifier",
            "--model.net",
            "modules.nets.PretrainedClassifier",
        ),
        *("--model.net.pretrained", folder, "--data", "datamodules.TextTable"),
        *("--data.train", tmp_path / "texts.csv", "--data.tokenizer", folder),
        *("--data.context", 16, "--data.batch_size", 8, "--trainer.accelerator", "cpu"),
        *("--trainer.max_steps", 4, "--trainer.val_check_interval", 2, *arguments),
    )


@pytest.mark.parametrize("adapter", [(), LORA], ids=["full", "LoRA"])
def test_resume_of_a_pretrained_classifier_is_bit_exact(tmp_path, run, adapter):
    theirs = make_model("bert", "AutoModelForSequenceClassification", num_labels=2)
    arguments = fine_tune(
        *(tmp_path, save_model(tmp_path / "source", theirs), "--trainer.max_steps", 9, *adapter),
        *("--model.lr_scheduler", "modules.optim.WarmupLinear", "--trainer.log_every_n_steps", 1),
        *("--checkpoint.every_n_steps", 2, "--test_after_fit", "false"),
    )
    uninterrupted = run(*arguments, "--experiment", "uninterrupted")
    with pytest.raises(Crash):
        run(*arguments, "--experiment", "stopped", *crash_after(7))  # in the second epoch
    resumed = run(*arguments, "--experiment", "stopped", "--resume", "auto")
    assert_same_run(uninterrupted, resumed)


@pytest.mark.slow
def test_validation_loss_in_bfloat16_and_float64_is_close_to_float32(tmp_path, run):
    theirs = make_model("bert", "AutoModelForSequenceClassification", num_labels=2)
    arguments = fine_tune(
        *(tmp_path, save_model(tmp_path / "source", theirs), "--model.net.dropout", 0.0),
        *("--trainer.max_steps", 2, "--test_after_fit", "false", "--trainer.precision"),
    )
    loss = {}
    for precision in ("32-true", "64-true", "bf16-true", "bf16-mixed"):
        folder = run(*arguments, precision, "--experiment", precision)
        loss[precision] = json.loads((folder / "results.json").read_text())["metrics"]["val/loss"]
    assert loss["64-true"] == pytest.approx(loss["32-true"], rel=1e-4)
    for half in ("bf16-true", "bf16-mixed"):
        assert loss[half] == pytest.approx(loss["32-true"], rel=0.1)
        assert loss[half] != loss["32-true"]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="compiling for the CPU needs g++")
def test_compiled_equals_eager_under_the_same_keys():
    config = {"model_type": "bert", **CONFIGS["bert"], "num_hidden_layers": 1}
    net, inputs = PretrainedClassifier(2, config=config, dropout=0.0), make_inputs()

    def outputs() -> list[torch.Tensor]:
        net.zero_grad()
        logits = net(inputs)
        logits.square().mean().backward()
        return [logits, *(p.grad.clone() for p in net.parameters() if p.grad is not None)]

    keys, eager = list(net.state_dict()), outputs()
    torch.compiler.reset()
    counters.clear()
    net.compile()
    torch.testing.assert_close(outputs(), eager, atol=1e-5, rtol=1e-4)
    assert counters["stats"]["unique_graphs"] > 0  # it was compiled
    assert list(net.state_dict()) == keys


def break_weights(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def drop_layer(tensors: dict) -> None:
    for name in [name for name in tensors if "layer.1." in name]:
        del tensors[name]


def add_layer(tensors: dict) -> None:
    for name in [name for name in tensors if "layer.1." in name]:
        tensors[name.replace("layer.1.", "layer.2.")] = tensors[name].clone()


def widen(tensors: dict) -> None:
    name = next(name for name in tensors if name.endswith("word_embeddings.weight"))
    tensors[name] = torch.zeros(80, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_layer, r"no weights for bert\.encoder\.layer\.1\..*, … \(16 in total\)"),
        (add_layer, r"unexpected weights bert\.encoder\.layer\.2\..*, … \(16 in total\)"),
        (widen, r"weights of another shape for bert\.embeddings\.word_embeddings\.weight"),
    ],
)
def test_weights_that_do_not_fit_are_reported(tmp_path, change, message):
    theirs = make_model("bert", "AutoModelForSequenceClassification", num_labels=2)
    folder = save_model(tmp_path / "source", theirs)
    break_weights(folder, change)
    with pytest.raises(ValueError, match=message):
        PretrainedClassifier(2, str(folder))


def test_new_head_is_a_warning_that_names_it(tmp_path):
    folder = save_model(tmp_path / "source", make_model("bert", "AutoModelForMaskedLM"))
    with pytest.warns(UserWarning, match=r"newly initialized.*bert\.pooler.*classifier"):
        net = PretrainedClassifier(4, str(folder))
    assert net.model.classifier.out_features == 4


def test_head_of_another_size_is_new(tmp_path):
    theirs = make_model("bert", "AutoModelForSequenceClassification", num_labels=2)
    with pytest.warns(UserWarning, match=r"newly initialized.*classifier\.bias"):
        PretrainedClassifier(3, str(save_model(tmp_path / "source", theirs)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "unheard"}, "holds a 'unheard', of which transformers"),
        ({"model_type": "vit"}, "'vit', of which transformers .* no ModelForSequenceClass"),
    ],
)
def test_unknown_architectures_are_reported(tmp_path, config, message):
    theirs = make_model("bert", "AutoModelForSequenceClassification", num_labels=2)
    folder = save_model(tmp_path / "source", theirs)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        PretrainedClassifier(2, str(folder))


def test_wrong_arguments_are_reported(tmp_path):
    theirs = make_model("roberta", "AutoModelForSequenceClassification", num_labels=2)
    folder = str(save_model(tmp_path / "source", theirs))
    with pytest.raises(ValueError, match="tokenizer of the data has 65 tokens, the embedding only"):
        PretrainedClassifier(2, folder, vocab_size=VOCAB_SIZE + 1)
    with pytest.raises(ValueError, match="context is at most 30 tokens, got 31"):
        PretrainedClassifier(2, folder, context=31)
    with pytest.raises(ValueError, match="needs `pretrained`"):
        PretrainedClassifier(2)
    (Path(folder) / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged or incomplete"):
        PretrainedClassifier(2, folder)


def test_language_model_is_fine_tuned_from_a_pretrained_one(tmp_path, run):
    theirs = make_model("llama", "AutoModelForCausalLM", vocab_size=300)
    text = "the film is very good . " * 100
    (tmp_path / "text.txt").write_text(text)
    folder = save_model(tmp_path / "source", theirs, train_bpe([text], 270))
    best = run(
        *("fit", "--model", "modules.LanguageModel", "--model.net"),
        *("modules.nets.PretrainedCausalLM", "--model.net.pretrained", folder),
        *("--data", "datamodules.TextFile", "--data.files", tmp_path / "text.txt"),
        *("--data.tokenizer", folder, "--data.context", 8, "--data.batch_size", 4),
        *("--trainer.max_steps", 4, "--trainer.val_check_interval", 2),
        *("--trainer.accelerator", "cpu"),
    )
    model = LanguageModel.load_from_checkpoint(
        best / "checkpoints/last.ckpt", map_location="cpu", weights_only=True
    )
    assert model.generate("the film", 3, top_k=1)
    assert model.net.context == 8


def test_help_names_the_networks(capsys):
    with pytest.raises(SystemExit):
        train.main(["fit", "--model.net.help", "PretrainedClassifier"])
    assert "gradient_checkpointing" in capsys.readouterr().out


def test_tokenizer_of_the_folder_is_used(tmp_path):
    folder = save_model(tmp_path / "source", make_model("bert", "AutoModel"))
    fine_tune(tmp_path, folder)
    data = TextTable(str(tmp_path / "texts.csv"), tokenizer=str(folder), context=4)
    assert data.tokenizer.to_str() == make_tokenizer().to_str()
