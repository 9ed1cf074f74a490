"""Contracts of every text classifier."""

import inspect
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from engine.errors import UserError
from modules import Classifier
from modules.nets import AttentionRNN, BagOfWords, TextCNN, TextRNN, TransformerClassifier
from modules.nets.bag_of_words import hash_bigrams
from modules.nets.text_rnn import TextEncoder, reverse_sequences
from modules.nets.transformer_classifier import sinusoidal_positions
from tests.support.text_nets import (
    CONTEXT,
    IGNORES_ORDER,
    NUM_CLASSES,
    TEXT_NET_CLASSES,
    TEXT_NETS,
    VOCAB_SIZE,
    batch_of,
)

LENGTHS = [1, 4, 9, 12, 2]


@pytest.fixture(params=TEXT_NETS)
def net(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(1)
    return TEXT_NETS[request.param]()


def test_every_text_net_has_a_case() -> None:
    assert {type(make()) for make in TEXT_NETS.values()} == set(TEXT_NET_CLASSES)


def test_logits_have_one_finite_row_per_text(net: nn.Module) -> None:
    logits = net(batch_of(LENGTHS))
    assert logits.shape == (len(LENGTHS), NUM_CLASSES)
    assert logits.isfinite().all()


def test_padding_does_not_change_the_logits(net: nn.Module) -> None:
    net.eval()
    narrow, wide = net(batch_of(LENGTHS)), net(batch_of(LENGTHS, width=CONTEXT))
    # 1e-5: kernels for other widths sum in another order (fp32).
    torch.testing.assert_close(narrow, wide, atol=1e-5, rtol=1e-5)


def test_tokens_in_the_padding_do_not_change_the_logits(net: nn.Module) -> None:
    net.eval()
    batch = batch_of(LENGTHS)
    random_tokens = torch.randint_like(batch["input_ids"], VOCAB_SIZE)
    other_padding = torch.where(batch["attention_mask"], batch["input_ids"], random_tokens)
    assert not torch.equal(other_padding, batch["input_ids"])
    torch.testing.assert_close(net(batch), net(batch | {"input_ids": other_padding}))


def test_integer_masks_equal_boolean_masks(net: nn.Module) -> None:
    net.eval()
    batch = batch_of(LENGTHS)
    numbers = batch | {"attention_mask": batch["attention_mask"].long()}
    assert torch.equal(net(batch), net(numbers))


def test_logits_do_not_depend_on_the_batch(net: nn.Module) -> None:
    net.eval()
    batch = batch_of(LENGTHS)
    together = net(batch)
    for row, length in enumerate(LENGTHS):
        alone = net({name: tensor[row : row + 1, :length] for name, tensor in batch.items()})
        torch.testing.assert_close(alone, together[row : row + 1], atol=1e-5, rtol=1e-5)


def test_logits_depend_on_every_token(net: nn.Module) -> None:
    net.eval()
    batch = batch_of([8] * 8)
    batch["input_ids"] = batch["input_ids"][:1].repeat(8, 1)
    changed = batch["input_ids"].clone()
    diagonal = torch.arange(8)
    changed[diagonal, diagonal] = (changed[diagonal, diagonal] - 1) % (VOCAB_SIZE - 2) + 2
    difference = (net(batch) - net(batch | {"input_ids": changed})).abs().amax(dim=1)
    assert (difference > 1e-7).sum() >= (
        6 if isinstance(net, TextCNN) else 8
    )  # max-pooling may ignore some


def test_every_parameter_receives_gradient(net: nn.Module) -> None:
    batch = batch_of([12, 5] * 100)
    F.cross_entropy(net(batch), torch.arange(200) % NUM_CLASSES).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_first_loss_is_close_to_ln_num_classes(net: nn.Module) -> None:
    with torch.no_grad():
        loss = F.cross_entropy(net.eval()(batch_of([10] * 200)), torch.arange(200) % NUM_CLASSES)
    assert abs(loss.item() - math.log(NUM_CLASSES)) < 0.25  # as in test_image_nets.py


def test_logits_depend_on_word_order_except_in_a_bag_of_words(
    request: pytest.FixtureRequest, net
) -> None:
    net.eval()
    batch = batch_of([10, 10, 10])
    reverse = batch | {"input_ids": batch["input_ids"].flip(1)}
    equal = torch.allclose(net(batch), net(reverse), atol=1e-6)
    assert equal == (request.node.callspec.params["net"] in IGNORES_ORDER)


def test_arguments_are_attributes(net: nn.Module) -> None:
    arguments = {name: getattr(net, name) for name in inspect.signature(type(net)).parameters}
    again = type(net)(**arguments)
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in net.state_dict().items()
    }


def test_empty_batch_gives_empty_logits(net: nn.Module) -> None:
    assert net.eval()(batch_of([], width=1)).shape == (0, NUM_CLASSES)


def test_every_net_overfits_random_labels(net: nn.Module) -> None:
    batch, labels = batch_of([12, 7, 3, 9] * 4), torch.arange(16) % NUM_CLASSES
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(60):
        loss = F.cross_entropy(net(batch), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.equal(net.eval()(batch).argmax(dim=1), labels)


def test_loss_on_random_labels_is_not_below_the_entropy(net: nn.Module) -> None:
    draw = torch.Generator().manual_seed(3)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.002)
    losses = []
    for step in range(60):
        labels = torch.randint(NUM_CLASSES, (32,), generator=draw)
        lengths = torch.randint(1, 13, (32,), generator=draw).tolist()
        loss = F.cross_entropy(net(batch_of(lengths, seed=step)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    late_losses = torch.tensor(losses[20:])
    # Four standard errors of the mean, as in test_image_nets_learn.py.
    assert late_losses.mean() > math.log(NUM_CLASSES) - 4 * late_losses.std() / math.sqrt(
        len(late_losses)
    )
    assert late_losses.mean() < math.log(NUM_CLASSES) + 0.5


# Individual networks.


def copy_of_layers(encoder: TextEncoder, cell: type[nn.RNNBase]) -> nn.RNNBase:
    """Return PyTorch's bidirectional layers with the weights of ours."""
    first = encoder.forwards[0]
    reference = cell(
        first.input_size,
        first.hidden_size,
        len(encoder.forwards),
        batch_first=True,
        bidirectional=bool(encoder.backwards),
    )
    for number in range(len(encoder.forwards)):
        for direction, suffix in ((encoder.forwards, ""), (encoder.backwards, "_reverse")):
            for name, weight in direction[number].layers[0].named_parameters():
                own = getattr(reference, name.removesuffix("_l0") + f"_l{number}{suffix}")
                own.data.copy_(weight.data)
    return reference


@pytest.mark.parametrize(("cell", "layers"), [("lstm", nn.LSTM), ("gru", nn.GRU), ("rnn", nn.RNN)])
def test_encoder_equals_packed_sequences(cell: str, layers: type) -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(VOCAB_SIZE, cell, 6, 5, 2, 0.0, bidirectional=True)
    batch = batch_of(LENGTHS)
    ours = encoder(batch["input_ids"], batch["attention_mask"])
    packed = pack_padded_sequence(
        encoder.embedding(batch["input_ids"]),
        torch.tensor(LENGTHS),
        batch_first=True,
        enforce_sorted=False,
    )
    outputs, state = copy_of_layers(encoder, layers)(packed)
    theirs, _ = pad_packed_sequence(outputs, batch_first=True)
    inside = batch["attention_mask"]
    torch.testing.assert_close(ours[inside], theirs[inside])
    last = state[0] if cell == "lstm" else state  # (layers · directions, B, D)
    torch.testing.assert_close(encoder.ends(ours, inside), torch.cat([last[-2], last[-1]], dim=1))


def test_reversing_twice_is_the_identity() -> None:
    batch = batch_of([3, 1, 4])
    x = torch.randn(3, 4, 2)
    reversed_once = reverse_sequences(x, batch["attention_mask"])
    assert torch.equal(reversed_once[0], x[0, [2, 1, 0, 3]])
    assert torch.equal(reverse_sequences(reversed_once, batch["attention_mask"]), x)


def test_attention_weights_sum_to_one_and_are_zero_on_padding() -> None:
    net = TEXT_NETS["AttentionRNN"]().eval()
    batch = batch_of(LENGTHS)
    weights = net.attention_weights(batch)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(LENGTHS)))
    assert not weights[~batch["attention_mask"]].any()
    assert (weights[batch["attention_mask"]] > 0).all()


def test_logits_are_made_of_the_weighted_mean() -> None:
    net = TEXT_NETS["AttentionRNN"]().eval()
    batch = batch_of(LENGTHS)
    x = net.encoder(batch["input_ids"], batch["attention_mask"])
    text = (net.attention_weights(batch).unsqueeze(-1) * x).sum(dim=1)
    torch.testing.assert_close(net(batch), net.head(text))


def test_filters_that_start_in_the_padding_are_ignored() -> None:
    net = TextCNN(NUM_CLASSES, VOCAB_SIZE, dim=4, widths=[2], filters=3, dropout=0.0)
    convolution = net.convolutions[0]
    nn.init.constant_(convolution.weight, -1.0)
    nn.init.constant_(convolution.bias, 9.0)  # the activation on padding is the largest
    nn.init.constant_(net.embedding.weight, 1.0)
    narrow, wide = (net(batch_of([3], width=width)) for width in (3, 6))
    torch.testing.assert_close(wide, narrow)


def test_bag_of_words_is_the_mean_of_unigrams_and_bigrams() -> None:
    net = BagOfWords(NUM_CLASSES, VOCAB_SIZE, dim=8, bigram_buckets=40)
    tokens = torch.tensor([[4, 9, 4]])
    pairs = hash_bigrams(tokens, 40) + VOCAB_SIZE
    mean = torch.cat([net.embedding(tokens), net.embedding(pairs)], dim=1).mean(dim=1)
    batch = {"input_ids": tokens, "attention_mask": torch.ones(1, 3, dtype=torch.bool)}
    # Three unigrams and two bigrams, each with weight 1 / 5.
    torch.testing.assert_close(net(batch), net.head(mean))


def test_bigram_hash_is_uniform_and_depends_on_order() -> None:
    tokens = torch.cartesian_prod(torch.arange(200), torch.arange(200))  # (40000, 2)
    numbers = hash_bigrams(tokens, 1000).flatten()
    counts = numbers.bincount(minlength=1000)
    # 40 per bucket; a Poisson count is beyond ± 6 standard deviations once in 10^9.
    assert counts.min() > 5
    assert counts.max() < 90
    assert (numbers == hash_bigrams(tokens.flip(1), 1000).flatten()).float().mean() < 0.02


def test_sparse_gradients_equal_dense_ones() -> None:
    gradients = []
    for sparse in (False, True):
        torch.manual_seed(0)
        net = BagOfWords(NUM_CLASSES, VOCAB_SIZE, dim=4, bigram_buckets=9, sparse=sparse)
        net(batch_of(LENGTHS)).square().sum().backward()
        gradients.append(net.embedding.weight.grad)
    assert gradients[1].is_sparse
    torch.testing.assert_close(gradients[1].to_dense(), gradients[0])


def test_sinusoidal_positions_equal_the_formula() -> None:
    table = sinusoidal_positions(50, 8, torch.device("cpu"))
    for t, i in ((0, 0), (7, 1), (49, 3)):
        angle = t / 10000 ** (2 * i / 8)
        assert table[t, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert table[t, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_text_beyond_the_context_is_refused() -> None:
    net = TEXT_NETS["Transformer-learned"]()
    with pytest.raises(ValueError, match=f"is {CONTEXT} tokens, got {CONTEXT + 1}"):
        net(batch_of([CONTEXT + 1]))


@pytest.mark.parametrize(
    ("net", "wrong"),
    [
        (BagOfWords, {"bigram_buckets": -1}),
        (TextCNN, {"widths": [0, 2]}),
        (TextCNN, {"widths": []}),
        (TextRNN, {"pooling": "first"}),
        (TextRNN, {"cell": "tanh"}),
        (AttentionRNN, {"cell": "tanh"}),
        (TransformerClassifier, {"positions": "none"}),
        (TransformerClassifier, {"dim": 30, "num_heads": 4}),
    ],
)
def test_invalid_arguments_are_named(net: type, wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        net(NUM_CLASSES, VOCAB_SIZE, **wrong)


def test_classifier_without_attention_or_tokenizer() -> None:
    task = Classifier(TEXT_NETS["BagOfWords"](), NUM_CLASSES)
    assert task.attention(batch_of(LENGTHS)) is None
    with pytest.raises(UserError, match="without `preprocessing` and `tokenizer`"):
        task.classify(["some text"])
    with pytest.raises(UserError, match="trained without `tokenizer`"):
        task.decode_tokens([1])
