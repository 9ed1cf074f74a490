"""Our GPT reads and writes the decoders of the Llama family, with equal logits and generation."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from modules.inference.generation import generate
from modules.inference.sampling import Sampling
from modules.nets import GPT
from modules.nets.huggingface.gpt import load_gpt, save_gpt
from modules.nets.layers.rotary import rotary_frequencies
from tests.support.huggingface import VOCAB_SIZE, make_model, save_model

T = 12
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
OPTIONS = [
    ("llama", {"rms_norm_eps": 1e-6}),
    ("llama", {"tie_word_embeddings": True, "rope_parameters": LLAMA3}),
    ("llama", {"head_dim": 12, "rope_parameters": {**LLAMA3, "low_freq_factor": 0.1}}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e5, "factor": 4.0}}),
    ("mistral", {}),
    ("mistral", {"sliding_window": 64}),
    ("qwen2", {}),
    ("qwen2", {"tie_word_embeddings": True, "rms_norm_eps": 1e-5}),
    (
        "llama",
        {
            "max_position_embeddings": 64,
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "rope_theta": 500.0,
                "original_max_position_embeddings": 16,
            },
        },
    ),
    ("qwen3", {}),
    ("qwen3", {"tie_word_embeddings": True, "num_key_value_heads": 2}),
]


def draw(rows: int = 2) -> torch.Tensor:
    # Without token 0: `generate` of transformers would take it for padding.
    return torch.randint(1, VOCAB_SIZE, (rows, T), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("kind", "options"), OPTIONS)
def test_loaded_folder_gives_the_logits_and_the_generation_of_transformers(tmp_path, kind, options):
    theirs = make_model(kind, "AutoModelForCausalLM", **options)
    ours = load_gpt(save_model(tmp_path, theirs)).eval()
    with torch.inference_mode():
        expected = theirs(draw()).logits
        torch.testing.assert_close(ours(draw())[0], expected, atol=1e-5, rtol=1e-4)
        state = ours.init_state(2)
        pieces = [ours(piece, state)[0] for piece in draw().split([5, 1, T - 6], dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), expected, atol=1e-5, rtol=1e-4)
    tokens = theirs.generate(draw(1), max_new_tokens=9, do_sample=False, eos_token_id=None)
    found = [step[0] for step in generate(ours, draw(1).tolist(), 9, Sampling(top_k=1))]
    assert found == tokens[0, T:].tolist()


@pytest.mark.parametrize(("kind", "options"), OPTIONS)
def test_written_folder_gives_the_same_logits(tmp_path, kind, options):
    ours = load_gpt(save_model(tmp_path / "a", make_model(kind, "AutoModelForCausalLM", **options)))
    save_gpt(ours, tmp_path / "b")
    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path / "b", output_loading_info=True)
    assert theirs.config.model_type == {"mistral": "llama"}.get(kind, kind)
    assert not any(report.values()), report
    with torch.inference_mode():
        logits = theirs.eval()(draw()).logits
        torch.testing.assert_close(ours.eval()(draw())[0], logits, atol=1e-5, rtol=1e-4)


def test_weights_of_any_precision_become_float32(tmp_path):
    theirs = make_model("llama", "AutoModelForCausalLM").bfloat16()
    ours = load_gpt(save_model(tmp_path, theirs))
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in ours.parameters())


def test_missing_and_unexpected_weights_are_counted(tmp_path):
    folder = save_model(tmp_path, make_model("llama", "AutoModelForCausalLM"))
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if "layers.1." in name]:
        tensors[name.replace("layers.1.", "layers.7.")] = tensors.pop(name)
    save_file(tensors, folder / "model.safetensors")
    message = r"no weights for model\.layers\.1\..* \(9 in total\); unexpected .*layers\.7\."
    with pytest.raises(ValueError, match=message):
        load_gpt(folder)


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"rope_type": "su"}, "rope_type must be one of linear, ntk, yarn, llama3, got 'su'"),
        ({"rope_type": "yarn", "factor": 2.0}, "yarn needs original_max_position_embeddings"),
        ({"rope_type": "linear"}, "rope_scaling of type linear needs factor"),
    ],
)
def test_invalid_scaling_is_reported(scaling, message):
    with pytest.raises(ValueError, match=message):
        GPT(VOCAB_SIZE, positions="rotary", rope_scaling=scaling)


def test_ntk_is_exported_as_a_larger_theta(tmp_path):
    scaling = {"rope_type": "ntk", "factor": 4.0}
    plain = load_gpt(save_model(tmp_path / "a", make_model("llama", "AutoModelForCausalLM"))).eval()
    net = load_gpt(tmp_path / "a").eval()
    net.rope_scaling = scaling
    save_gpt(net, tmp_path / "b")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "b").eval()
    with torch.inference_mode():
        torch.testing.assert_close(net(draw())[0], theirs(draw()).logits, atol=1e-5, rtol=1e-4)
        assert (net(draw())[0] - plain(draw())[0]).abs().max() > 1e-3
    # The highest frequency stays, the lowest one is divided by the factor.
    before, after = (rotary_frequencies(16, 10000.0, given) for given in (None, scaling))
    assert after[0] == before[0]
    assert after[-1].item() == pytest.approx(before[-1].item() / 4, rel=1e-5)


def test_biases_and_norms_of_queries_together_are_not_exported(tmp_path):
    net = GPT(
        *(VOCAB_SIZE, 16, 1, 2, 16),
        positions="rotary",
        norm="rms",
        activation="swiglu",
        bias=False,
        qkv_bias=True,
        qk_norm=True,
    )
    with pytest.raises(ValueError, match="no architecture has both"):
        save_gpt(net, tmp_path / "folder")
