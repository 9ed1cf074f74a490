"""Contracts of translation networks, and their equality with references."""

import inspect
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import modules.nets
from modules.nets import Seq2Seq, Transformer
from modules.nets.rnn import gru_cell
from tests.support.translation_nets import (
    CONTEXT,
    LENGTHS,
    NETS,
    SOURCES,
    TARGET_LENGTH,
    TARGETS,
    batch_of,
)


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(1)
    return NETS[request.param]()


def test_every_translation_net_has_a_case() -> None:
    expected = {
        net
        for net in (getattr(modules.nets, name) for name in modules.nets.__all__)
        if "target_vocab_size" in inspect.signature(net).parameters
    }
    assert {type(make()) for make in NETS.values()} == expected


def test_logits_have_one_finite_row_per_target_token(net: nn.Module) -> None:
    logits = net(batch_of())
    assert logits.shape == (len(LENGTHS), TARGET_LENGTH, TARGETS)
    assert logits.isfinite().all()


def test_source_padding_does_not_change_the_logits(net: nn.Module) -> None:
    net.eval()
    batch, wide = batch_of(), batch_of()
    extra = torch.randint(4, TARGETS, (len(LENGTHS), 5))  # other tokens than zeros
    wide["input_ids"] = torch.cat([batch["input_ids"], extra], dim=1)
    wide["attention_mask"] = F.pad(batch["attention_mask"], (0, 5))
    # 1e-5: kernels for other widths sum in another order (fp32).
    torch.testing.assert_close(net(wide), net(batch), atol=1e-5, rtol=1e-5)


def test_logits_do_not_depend_on_the_batch(net: nn.Module) -> None:
    net.eval()
    batch = batch_of()
    together = net(batch)
    for row, length in enumerate(LENGTHS):
        alone = {name: part[row : row + 1] for name, part in batch.items()}
        for name in ("input_ids", "attention_mask"):
            alone[name] = alone[name][:, :length]
        torch.testing.assert_close(net(alone), together[row : row + 1], atol=1e-5, rtol=1e-5)


def test_later_target_tokens_do_not_change_earlier_logits(net: nn.Module) -> None:
    net.eval()
    batch = batch_of()
    before = net(batch)
    for position in range(TARGET_LENGTH):
        changed = batch["decoder_input_ids"].clone()
        changed[:, position] = (changed[:, position] - 3) % (TARGETS - 4) + 4
        after = net(batch | {"decoder_input_ids": changed})
        torch.testing.assert_close(after[:, :position], before[:, :position], atol=1e-6, rtol=1e-6)
        assert not torch.allclose(after[:, position:], before[:, position:], atol=1e-4)


def test_logits_depend_on_every_source_token(net: nn.Module) -> None:
    net.eval()
    batch = batch_of([7] * 7)
    batch = {name: part[:1].repeat(7, 1) for name, part in batch.items()}
    changed, diagonal = batch["input_ids"].clone(), torch.arange(7)
    changed[diagonal, diagonal] = (changed[diagonal, diagonal] - 3) % (TARGETS - 4) + 4
    difference = (net(batch) - net(batch | {"input_ids": changed})).abs().amax(dim=(1, 2))
    assert (difference > 1e-6).all()


def test_every_parameter_receives_gradient(net: nn.Module) -> None:
    batch = batch_of([7, 5] * 50)
    logits = net(batch)
    F.cross_entropy(logits.flatten(0, 1), batch["decoder_input_ids"].flatten()).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_first_loss_is_close_to_ln_vocab_size(net: nn.Module) -> None:
    batch = batch_of([7, 5] * 100)
    targets = torch.randint(TARGETS, (200, TARGET_LENGTH))
    with torch.no_grad():
        loss = F.cross_entropy(net.eval()(batch).flatten(0, 1), targets.flatten())
    # With a tied embedding and normalized inputs the logits are N(0, 1), which adds half a nat.
    assert loss < math.log(TARGETS) + 0.75


def test_decoding_in_parts_gives_the_same_logits(net: nn.Module) -> None:
    net.eval()
    batch = batch_of()
    memory = net.encode(batch)
    expected, no_state = net.decode(batch["decoder_input_ids"], memory)
    assert no_state is None
    state, parts = net.init_state(memory), []
    for part in batch["decoder_input_ids"].split([1, 1, 3, 1], dim=1):
        logits, state = net.decode(part, memory, state)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, atol=1e-5, rtol=1e-5)


def test_reordered_state_continues_the_selected_rows(net: nn.Module) -> None:
    net.eval()
    batch, rows = batch_of(), torch.tensor([2, 2, 0])
    memory = net.encode(batch)
    targets = batch["decoder_input_ids"]
    _, state = net.decode(targets[:, :4], memory, net.init_state(memory))
    selected = net.reorder_state(state, rows)
    part = {name: value[rows] for name, value in memory.items()}
    logits, _ = net.decode(targets[rows, 4:5], part, selected)
    expected, _ = net.decode(targets[:, :5], memory)
    torch.testing.assert_close(logits[:, 0], expected[rows, -1], atol=1e-5, rtol=1e-5)


def test_attention_weights_sum_to_one_and_are_zero_on_padding(net: nn.Module) -> None:
    net.eval()
    batch = batch_of()
    weights = net.attention_weights(batch)
    if getattr(net, "attention", "") == "none":
        assert weights is None
        return
    assert weights.shape == (len(LENGTHS), TARGET_LENGTH, max(LENGTHS))
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(len(LENGTHS), TARGET_LENGTH))
    outside = ~batch["attention_mask"][:, None, :].expand_as(weights)
    assert not weights[outside].any()
    assert (weights[~outside] > 0).all()


def test_arguments_are_attributes(net: nn.Module) -> None:
    arguments = {name: getattr(net, name) for name in inspect.signature(type(net)).parameters}
    again = type(net)(**arguments)
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in net.state_dict().items()
    }


def test_shared_vocabulary_shares_the_embedding() -> None:
    for kind, tables in (
        (Transformer, ("source_embedding", "target_embedding")),
        (Seq2Seq, ("encoder.embedding", "embedding")),
    ):
        one, two = (kind(20, 20, shared, dim=8, dropout=0.0) for shared in (True, False))
        assert one.get_submodule(tables[0]) is one.get_submodule(tables[1])
        sizes = [sum(p.numel() for p in net.parameters()) for net in (one, two)]
        assert sizes[1] - sizes[0] == 20 * 8


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Transformer, {"norm": "none"}),
        (Transformer, {"dim": 30, "num_heads": 4}),
        (Transformer, {"shared_vocabulary": True}),
        (Seq2Seq, {"attention": "cosine"}),
        (Seq2Seq, {"shared_vocabulary": True}),
    ],
)
def test_invalid_arguments_are_named(kind: type, wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        kind(SOURCES, TARGETS, **wrong)


def test_sentence_beyond_the_context_is_refused() -> None:
    net = NETS["Transformer-post"]()
    with pytest.raises(ValueError, match=f"{CONTEXT} tokens, got {CONTEXT + 1}"):
        net(batch_of([CONTEXT + 1]))
    with pytest.raises(ValueError, match=f"{CONTEXT} tokens, got {CONTEXT + 1}"):
        net(batch_of(target_length=CONTEXT + 1))


# References.


def copied(ours: Transformer) -> nn.Transformer:
    """Return PyTorch's Transformer with the weights of ours."""
    pre = ours.norm == "pre"
    theirs = nn.Transformer(
        ours.dim,
        ours.num_heads,
        ours.num_layers,
        ours.num_layers,
        dim_feedforward=ours.hidden_size or 4 * ours.dim,
        dropout=0.0,
        norm_first=pre,
        batch_first=True,
    )
    if not pre:  # PyTorch always adds a final norm; post-norm in the paper has none
        theirs.encoder.norm = theirs.decoder.norm = None
    for block, layer in zip(ours.encoder, theirs.encoder.layers, strict=True):
        copy_attention(layer.self_attn, block.attention.qkv, block.attention.proj)
        copy(layer, block, ("norm_1", "norm_2"))
    for block, layer in zip(ours.decoder, theirs.decoder.layers, strict=True):
        copy_attention(layer.self_attn, block.attention.qkv, block.attention.proj)
        cross = layer.multihead_attn
        copy_attention(cross, None, block.cross.proj)
        for kind in ("weight", "bias"):
            parts = [getattr(part, kind).data for part in (block.cross.q, block.cross.kv)]
            getattr(cross, f"in_proj_{kind}").data.copy_(torch.cat(parts))
        copy(layer, block, ("norm_1", "norm_2", "norm_3"))
    if pre:
        theirs.encoder.norm.load_state_dict(ours.last_norms[0].state_dict())
        theirs.decoder.norm.load_state_dict(ours.last_norms[1].state_dict())
    return theirs.eval()


def copy_attention(theirs: Any, qkv: Any, proj: nn.Linear) -> None:
    if qkv is not None:
        theirs.in_proj_weight.data.copy_(qkv.weight.data)
        theirs.in_proj_bias.data.copy_(qkv.bias.data)
    theirs.out_proj.load_state_dict(proj.state_dict())


def copy(layer: Any, block: Any, norms: tuple[str, ...]) -> None:
    layer.linear1.load_state_dict(block.mlp.up.state_dict())
    layer.linear2.load_state_dict(block.mlp.proj.state_dict())
    for name in norms:
        getattr(layer, name.replace("_", "")).load_state_dict(getattr(block, name).state_dict())


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_transformer_equals_that_of_pytorch(norm: str) -> None:
    torch.manual_seed(0)
    ours = Transformer(
        SOURCES, TARGETS, context=CONTEXT, dim=16, num_heads=4, hidden_size=24, norm=norm
    ).eval()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)  # also norms and biases
    theirs, batch = copied(ours), batch_of()
    outside, T = ~batch["attention_mask"], TARGET_LENGTH
    source = ours._embed(batch["input_ids"], ours.source_embedding, 0)
    target = ours._embed(batch["decoder_input_ids"], ours.target_embedding, 0)
    blocked = nn.Transformer.generate_square_subsequent_mask(T)
    with torch.no_grad():
        outputs = theirs(
            source,
            target,
            tgt_mask=blocked,
            src_key_padding_mask=torch.zeros(outside.shape).masked_fill(outside, -torch.inf),
            memory_key_padding_mask=torch.zeros(outside.shape).masked_fill(outside, -torch.inf),
        )
        expected = F.linear(outputs, ours.target_embedding.weight)
        torch.testing.assert_close(ours(batch), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("attention", ["none", "bahdanau", "luong"])
def test_recurrent_decoder_equals_its_equations(attention: str) -> None:
    """One sentence, token by token, with plain matrix products."""
    net = Seq2Seq(SOURCES, TARGETS, dim=6, hidden_size=5, num_layers=2, attention=attention).eval()
    batch = batch_of([4])
    logits = net(batch)[0]
    source = net.encoder(batch["input_ids"], batch["attention_mask"])[0]  # (S, C)
    ends = torch.cat([source[-1, :5], source[0, 5:]])
    states = list(torch.tanh(net.bridge.weight @ ends + net.bridge.bias).view(2, 5))
    for position, token in enumerate(batch["decoder_input_ids"][0]):
        x, h = net.embedding.weight[token], states[-1]
        if attention == "bahdanau":
            hidden, score = net.additive.hidden, net.additive.score.weight[0]
            energies = torch.stack(
                [
                    score @ torch.tanh(hidden.weight @ s + hidden.bias + net.query.weight @ h)
                    for s in source
                ]
            )
            context = energies.softmax(0) @ source
        if attention == "none":
            context = ends
        inputs = x if attention == "luong" else torch.cat([x, context])
        h = inputs
        for number, layer in enumerate(net.decoder.layers):
            (after,) = gru_cell(h[None], (states[number][None],), *layer.parameters())
            states[number] = h = after[0]
        if attention == "luong":
            energies = torch.stack([h @ net.general.weight @ s for s in source])
            context = energies.softmax(0) @ source
        final = torch.tanh(net.readout.weight @ torch.cat([h, context]) + net.readout.bias)
        torch.testing.assert_close(
            logits[position], net.embedding.weight @ final, atol=1e-5, rtol=1e-4
        )
