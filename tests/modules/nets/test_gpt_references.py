"""GPT equals transformers' GPT-2, Llama and GPT-NeoX, and independent forms of its equations."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from modules.nets import GPT
from modules.nets.huggingface.gpt import load_gpt, save_gpt
from modules.nets.layers.rotary import apply_rotary_emb, rope_cache
from tests.support.layer_by_layer import first_difference

V, T = 37, 16


def gpt(**options) -> GPT:
    torch.manual_seed(0)
    sizes = {"context": T, "num_layers": 2, "num_heads": 4, "dim": 32}
    return stir(GPT(V, **sizes | options)).eval()


def gpt2(**options) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    sizes = {"n_positions": T, "n_layer": 2, "n_head": 4, "n_embd": 32}
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    return stir(GPT2LMHeadModel(GPT2Config(vocab_size=V, **ids, **sizes | options))).eval()


def stir(net):
    """Perturb every weight and bias, so that one that is not copied changes the outputs."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return net


def draw(rows: int = 3, length: int = T) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(1))


def pairs(net: GPT) -> dict[str, str]:
    """Map our layers to those of GPT-2."""
    names = {"token_embedding": "wte", "drop": "drop"}
    for n in range(net.num_layers):
        for our_part, their_part in {
            "norm_1": "ln_1",
            "attention.qkv": "attn.c_attn",
            "attention": "attn",
            "norm_2": "ln_2",
            "mlp.up": "mlp.c_fc",
            "mlp": "mlp",
        }.items():
            names[f"blocks.{n}.{our_part}"] = f"h.{n}.{their_part}"
    names["last_norm"] = "ln_f"
    return {ours: f"transformer.{theirs}" for ours, theirs in names.items()}


def assert_equal(ours: GPT, theirs: GPT2LMHeadModel) -> None:
    with torch.inference_mode():
        difference = (ours(draw())[0] - theirs(draw()).logits).abs().max()
    assert difference < 1e-4, first_difference(ours, theirs, pairs(ours), draw())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_loaded_folder_gives_the_logits_of_transformers(tmp_path, tied, shard):
    theirs = gpt2(tie_word_embeddings=tied)
    theirs.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard == "20KB")
    assert_equal(load_gpt(tmp_path).eval(), theirs)


@pytest.mark.parametrize("activation", ["gelu_new", "gelu"])
def test_exact_and_approximate_gelu_are_distinguished(tmp_path, activation):
    theirs = gpt2(activation_function=activation)
    for parameter in theirs.parameters():
        parameter.data *= 8  # near zero the two are the same: they differ where |x| is about 2
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_gpt(tmp_path / "theirs").eval().double()
    save_gpt(ours, tmp_path / "ours")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval().double()
    with torch.inference_mode():
        expected = theirs.double()(draw()).logits
        torch.testing.assert_close(ours(draw())[0], expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(again(draw()).logits, expected, atol=1e-6, rtol=0)
        for block in ours.blocks:
            block.mlp.activation = "gelu" if activation == "gelu_new" else "gelu_tanh"
        assert (ours(draw())[0] - expected).abs().max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"tie_embeddings": False}, {"bias": False}])
def test_transformers_opens_saved_folder_with_the_same_logits(tmp_path, options):
    ours = gpt(**options)
    save_gpt(ours, tmp_path / "new" / "folder")
    theirs, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "new" / "folder", output_loading_info=True
    )
    assert not any(report.values()), report  # nothing missing, unexpected or mismatched
    assert_equal(ours, theirs.eval())


NEOX = {"positions": "rotary"}
LLAMA = {"positions": "rotary", "norm": "rms", "activation": "swiglu", "bias": False}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("GPTNeoXForCausalLM", NEOX),
        ("GPTNeoXForCausalLM", NEOX | {"bias": False}),
        ("GPTNeoXForCausalLM", NEOX | {"activation": "gelu_tanh", "tie_embeddings": False}),
        ("LlamaForCausalLM", LLAMA),
        ("LlamaForCausalLM", LLAMA | {"num_kv_heads": 2, "tie_embeddings": False}),
        ("LlamaForCausalLM", LLAMA | {"hidden_size": 72, "rope_theta": 500000.0}),
        ("GPT2LMHeadModel", {"hidden_size": 72}),
    ],
)
def test_saved_folder_loads_in_transformers_and_here_with_the_same_logits(tmp_path, kind, options):
    ours = gpt(**options)
    save_gpt(ours, tmp_path)
    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(theirs).__name__ == kind
    assert not any(report.values()), report  # nothing missing, unexpected or mismatched
    with torch.inference_mode():
        expected = ours(draw())[0]
        torch.testing.assert_close(theirs.eval()(draw()).logits, expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(load_gpt(tmp_path).eval()(draw())[0], expected)


@pytest.mark.parametrize("theta", [10000.0, 500000.0])
def test_llama_folder_of_transformers_gives_the_same_logits(tmp_path, theta):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=V,
        hidden_size=32,
        intermediate_size=88,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=T,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
    )
    theirs = stir(LlamaForCausalLM(config)).eval()
    theirs.save_pretrained(tmp_path)
    ours = load_gpt(tmp_path).eval()
    assert (ours.hidden_size, ours.rope_theta) == (88, theta)
    with torch.inference_mode():
        torch.testing.assert_close(ours(draw())[0], theirs(draw()).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "rope_type='longrope'"),
        ({"attention_bias": True}, "attention_bias=True"),
        ({"model_type": "mistral", "sliding_window": 8}, r"sliding window \(sliding_window=8\)"),
        (
            {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 4},
            "sliding_window=4",
        ),
    ],
)
def test_unsupported_llama_options_are_named(tmp_path, options, message):
    save_gpt(gpt(**LLAMA), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | options))
    with pytest.raises(ValueError, match=message):
        load_gpt(tmp_path)


def test_llama_widths_can_be_expressed():
    with torch.device("meta"):
        net = GPT(32000, 64, 1, 32, 2048, **LLAMA, num_kv_heads=4, hidden_size=5632)
    assert net.get_submodule("blocks.0.mlp.proj").weight.shape == (2048, 5632)
    assert net.get_submodule("blocks.0.mlp.up").weight.shape == (2 * 5632, 2048)


@pytest.mark.parametrize("options", [{"norm": "rms"}, {"num_kv_heads": 2}, LLAMA | {"bias": True}])
def test_rotary_options_of_no_known_architecture_are_refused(tmp_path, options):
    with pytest.raises(ValueError, match="cannot export a GPT with rotary positions and norm="):
        save_gpt(gpt(**{"positions": "rotary"} | options), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_saved_gpt2_loads_with_the_same_weights(tmp_path):
    ours = gpt(dropout=0.3)
    save_gpt(ours, tmp_path)
    again = load_gpt(tmp_path)
    assert again.dropout == 0.3
    for name, tensor in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_first_difference_names_the_layer():
    ours, theirs = gpt(), gpt2()
    assert first_difference(ours, theirs, pairs(ours), draw()).startswith("token_embedding")


def test_gpt2_weights_without_prefix_and_with_mask_buffers_load(tmp_path):
    # The oldest folder, "gpt2" itself, looks like this.
    theirs = gpt2()
    theirs.transformer.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert "wte.weight" in tensors
    tensors["h.0.attn.bias"] = torch.ones(1, 1, T, T).tril()
    save_file(tensors, tmp_path / "model.safetensors")
    assert_equal(load_gpt(tmp_path).eval(), theirs)


def test_unreadable_folders_are_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load_gpt(tmp_path)
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'bert'"):
        load_gpt(tmp_path)
    gpt2(activation_function="relu").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="activation_function='relu'"):
        load_gpt(tmp_path)
    gpt2().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for wrong, message in (
        ({"n_layer": 3}, r"no weights for h\.2\.attn\..* \(12 in total\)"),
        ({"vocab_size": 40}, "shape"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | wrong))
        with pytest.raises(ValueError, match=message):
            load_gpt(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        load_gpt(tmp_path)


@pytest.mark.parametrize(
    ("option", "value"), [("norm", "rms"), ("activation", "swiglu"), ("num_kv_heads", 2)]
)
def test_options_that_gpt2_lacks_are_refused(tmp_path, option, value):
    with pytest.raises(ValueError, match=f"GPT-2, which has no {option}"):
        save_gpt(gpt(**{option: value}), tmp_path / "folder")
    assert not Path(tmp_path / "folder").exists()


@pytest.mark.parametrize("options", [{}, {"positions": "rotary", "num_kv_heads": 2}])
def test_sdpa_equals_eager_attention(options):
    nets = [gpt(attention=attention, **options) for attention in ("sdpa", "eager", "auto")]
    for net in nets:
        state = net.init_state(3)
        with torch.no_grad():
            net.read = torch.cat([net(piece, state)[0] for piece in draw().split([5, 1, 10], 1)], 1)
        net(draw())[0].square().mean().backward()
    for other in nets[1:]:
        torch.testing.assert_close(other(draw())[0], nets[0](draw())[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(other.read, nets[0].read, atol=1e-5, rtol=1e-5)
        for p, q in zip(other.parameters(), nets[0].parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, atol=1e-5, rtol=1e-4)


def test_auto_attention_is_eager_on_a_cpu_in_bf16_and_with_dropout_only(monkeypatch):
    called = []
    kernel = nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        nn.functional,
        "scaled_dot_product_attention",
        lambda *args, **options: called.append(1) or kernel(*args, **options),
    )
    for dropout, bf16, training, expected in (
        (0.0, False, True, 2),
        (0.1, False, False, 2),
        (0.1, False, True, 0),
        (0.0, True, True, 0),
    ):
        called.clear()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            gpt(dropout=dropout).train(training)(draw())
        assert len(called) == expected, (dropout, bf16, training)


def test_rotary_embedding_multiplies_complex_numbers():
    x = torch.randn(2, 4, T, 8)
    # The pair (x_i, x_{i + K/2}) as one complex number, times e^{i t θ}.
    pairs = torch.complex(x[..., :4], x[..., 4:])
    theta = torch.tensor([1.0, 0.1, 0.01, 0.001])  # 10000^(-2i / 8)
    rotated = pairs * torch.exp(1j * torch.arange(3, 3 + T)[:, None] * theta)
    rope = rope_cache(torch.arange(3, 3 + T), 8, 10000.0)
    expected = torch.cat([rotated.real, rotated.imag], dim=-1)
    torch.testing.assert_close(apply_rotary_emb(x, rope), expected)


def test_rotary_scores_depend_on_relative_positions_only():
    q, k = torch.randn(2, 1, 1, T, 8)
    near, far = (rope_cache(torch.arange(start, start + T), 8, 10000.0) for start in (0, 100))
    q_near, q_far = apply_rotary_emb(q, near), apply_rotary_emb(q, far)
    k_near, k_far = apply_rotary_emb(k, near), apply_rotary_emb(k, far)
    torch.testing.assert_close(q_far @ k_far.mT, q_near @ k_near.mT, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(q_far @ k_near.mT, q_near @ k_near.mT, atol=0.1)


def test_grouped_heads_equal_full_heads_that_share_their_weights():
    grouped, full = gpt(num_kv_heads=2), gpt(num_kv_heads=4)
    weights = grouped.state_dict()
    for name in weights:
        if ".qkv." in name:
            q, k, v = weights[name].split([32, 16, 16])
            repeat = [part.unflatten(0, (2, 8)).repeat_interleave(2, dim=0) for part in (k, v)]
            weights[name] = torch.cat([q, *(part.flatten(0, 1) for part in repeat)])
    full.load_state_dict(weights)
    torch.testing.assert_close(grouped(draw())[0], full(draw())[0])
    plain = gpt(num_kv_heads=None)
    plain.load_state_dict(weights)
    assert torch.equal(plain(draw())[0], full(draw())[0])


def test_residual_projections_are_initialized_smaller():
    torch.manual_seed(0)
    net = GPT(V, dim=64, num_heads=4, num_layers=8)
    for name, parameter in net.named_parameters():
        if name.endswith("proj.weight"):
            assert parameter.std().item() == pytest.approx(0.02 / 4, rel=0.1), name
        elif "norm" not in name and name.endswith("weight"):
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"positions": "sinus"}, "positions must be one of learned, rotary"),
        ({"dim": 33}, "multiple of num_heads"),
        ({"num_kv_heads": 3}, "must divide num_heads"),
        ({"dim": 12, "positions": "rotary"}, "even head width"),
    ],
)
def test_invalid_options_are_reported(wrong, message):
    with pytest.raises(ValueError, match=message):
        gpt(**wrong)
