"""Tasks without torch have the results of the tasks in modules/, for the same network."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import modules
from modules.inference import onnx_runtime
from modules.nets import MLP, BagOfWords
from preprocessing.image_arrays import images_to_arrays
from preprocessing.images import images_to_inputs
from preprocessing.texts import with_truncation_and_padding
from tests.support.huggingface import make_tokenizer

TEXTS = ["good film", "the film was very bad is a a the", "a"]
TOKENIZER = with_truncation_and_padding(make_tokenizer(), 8)
IMAGES = {"in_channels": 3, "image_size": 6, "mean": [0.3, 0.4, 0.5], "std": [0.4, 0.3, 0.2]}
NAMES = ["O", "B-PER", "I-PER"]


class TokenStates(nn.Module):
    """Hidden states (B, T, D) that depend on the token and its position."""

    context = 8

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(64, 3)

    def forward(self, inputs):
        positions = torch.arange(inputs["input_ids"].shape[1]).sin()  # (T,)
        return self.table(inputs["input_ids"]) + positions[:, None]


class Net:
    """The interface of OnnxSession over a network of torch."""

    def __init__(self, net) -> None:
        self.net = net

    def run(self, inputs):
        given = (
            {name: torch.from_numpy(array) for name, array in inputs.items()}
            if isinstance(inputs, dict)
            else torch.from_numpy(inputs)
        )
        with torch.no_grad():
            return self.net(given).numpy()


def both(name, net, **arguments):
    """Return the task of torch and the one without."""
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5)
    task = getattr(modules, name)(net, **arguments).eval()
    return task, getattr(onnx_runtime, name)(Net(net), arguments)


@pytest.mark.parametrize("name", ["Classifier", "MultiLabelClassifier"])
def test_classifiers_have_equal_predictions(name):
    torch.manual_seed(0)
    net = BagOfWords(num_classes=3, vocab_size=64, dim=4)
    task, other = both(name, net, num_classes=3, tokenizer=TOKENIZER, class_names=["a", "b", "c"])
    for samples in (TEXTS, "good", [("good film", "a")]):
        np.testing.assert_allclose(
            other.probabilities(samples), task.probabilities(samples), atol=1e-6
        )
    for options in ({}, {"top_k": 2}):
        expected, found = task.classify(TEXTS, **options), other.classify(TEXTS, **options)
        assert str(found)[:20] == str(expected)[:20]
        assert np.shape(found) == np.shape(expected) if options else len(found) == 3
    explained, (expected, *_) = other.explain(TEXTS)[0], task.explain(TEXTS)
    assert explained.label == expected.label
    assert [word.word for word in explained.words] == ["good", "film"]
    np.testing.assert_allclose(
        [word.weight for word in explained.words],
        [word.weight for word in expected.words],
        atol=1e-6,
    )


def test_regressors_have_equal_predictions():
    torch.manual_seed(0)
    options = {"target_mean": 3.0, "target_std": 2.5, "tokenizer": TOKENIZER}
    task, other = both("Regressor", BagOfWords(num_classes=1, vocab_size=64, dim=4), **options)
    np.testing.assert_allclose(other.predict(TEXTS), task.predict(TEXTS), rtol=1e-6)


def test_token_classifiers_have_equal_entities():
    torch.manual_seed(1)
    options = {"num_classes": 3, "class_names": NAMES, "tokenizer": TOKENIZER}
    task, other = both("TokenClassifier", TokenStates(), **options)
    with pytest.warns(UserWarning, match="1 of 3 texts are longer"):
        expected = task.tag(TEXTS)
    with pytest.warns(UserWarning, match="1 of 3 texts are longer"):
        found = other.tag(TEXTS)
    assert sum(map(len, expected)) > 1
    for left, right in zip(found, expected, strict=True):
        assert [entity[:4] for entity in left] == [entity[:4] for entity in right]
        scores = [entity.score for entity in left], [entity.score for entity in right]
        np.testing.assert_allclose(*scores, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("normalize", [True, False])
def test_encoders_have_equal_vectors(pooling, normalize):
    torch.manual_seed(2)
    options = {"pooling": pooling, "normalize": normalize, "tokenizer": TOKENIZER}
    task, other = both("SentenceEncoder", TokenStates(), **options)
    for arguments in ({}, {"dim": 2}, {"batch_size": 2}):
        expected = task.embed(TEXTS, **arguments)
        np.testing.assert_allclose(other.embed(TEXTS, **arguments), expected, atol=1e-6)


def random_images(sizes):
    draw = np.random.default_rng(0)
    modes = {"RGB": 3, "RGBA": 4, "L": 1}
    for (mode, channels), size in zip(modes.items(), sizes, strict=True):
        pixels = draw.integers(256, size=(*size, channels), dtype=np.uint8)
        yield Image.fromarray(pixels.squeeze(), mode)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shorter_side", [None, 9])
def test_images_are_prepared_as_by_torchvision(channels, shorter_side):
    given = IMAGES | {"in_channels": channels}
    given |= {name: IMAGES[name][:channels] for name in ("mean", "std")}
    if shorter_side:
        given["shorter_side"] = shorter_side
    images = list(random_images([(6, 6), (13, 20), (17, 10)]))
    found, expected = images_to_arrays(images, given), images_to_inputs(images, given).numpy()
    level = 1 / 255 / min(given["std"])
    np.testing.assert_allclose(found, expected, atol=1.01 * level)  # of one pixel value
    if shorter_side is None:  # the first image is not resized
        np.testing.assert_allclose(found[0], expected[0], atol=1e-6)


def test_image_classifiers_have_equal_predictions():
    torch.manual_seed(0)
    net = MLP(num_classes=3, in_channels=3, image_size=6, hidden_sizes=[4])
    task, other = both("Classifier", net, num_classes=3, preprocessing=IMAGES)
    image = next(random_images([(6, 6), (1, 1), (1, 1)]))
    np.testing.assert_allclose(other.probabilities(image), task.probabilities(image), atol=1e-6)
    assert other.classify(image)[0][0] == task.classify(image)[0][0]
