"""The tokenizers of single texts: words, characters, byte pairs or word pieces, learnt from them.

Each is a `tokenizers.Tokenizer` and so one JSON string. Unlike those of `tokenization.py`, which
keep a long text exactly as it is, these have [PAD] (number 0 where they are learnt here), [UNK] for
what was not in the texts learnt from, and may make a text lower case first. All that happens to a
raw text stands in the JSON: the markup that is removed, the cutting, the padding.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from datamodules.loading.files import obtain
from datamodules.text.tokenization import byte_pairs
from preprocessing.special_tokens import CLS, MASK, PAD, SEP, UNK

Kind = Literal["words", "characters", "bpe", "wordpiece", "bert"]
KINDS: tuple[str, ...] = get_args(Kind)
# A word, the end of a contracted one, or any other sign: don't → don 't, film's → film 's.
PLAIN_WORD = r"\w+|'(?:s|t|re|ve|m|ll|d)\b"
WORD = PLAIN_WORD + r"|[^\w\s]"
LINE_BREAK = r"<br\s*/?>"  # the only markup of the IMDB reviews
BERT_URL = "https://huggingface.co/google-bert/bert-base-uncased/resolve/main/vocab.txt"
BERT_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"


def choose(
    name: str,
    texts: Callable[[], Iterable[str]],
    max_vocab_size: int,
    min_count: int,
    lowercase: bool,
    data_dir: Path,
) -> Tokenizer:
    """The tokenizer that a data set was asked for: learnt, or the very one of a trained net.

    Args:
        name: One of `KINDS`; or a checkpoint, a `tokenizer.json`, or a Hugging Face folder, looked
            for as it stands and then in data_dir.
        texts: Gives what to learn from, where that is needed.
        **others: See `learn`.

    Raises:
        MisconfigurationException: If there is no such tokenizer.
    """
    path = file_of(name, data_dir)
    if path is None:
        kind: Kind = name  # type: ignore[assignment]
        return learn(kind, texts(), max_vocab_size, min_count, lowercase, data_dir=data_dir)
    made = saved(path)
    if made.token_to_id(PAD) is None or made.token_to_id(UNK) is None:
        raise MisconfigurationException(
            f"{path} holds a tokenizer without {PAD} or {UNK}, as a language model's is: texts of "
            "different lengths can't be read with it. Name that of a text classifier or a BERT."
        )
    return made


def file_of(name: str, data_dir: Path) -> Path | None:
    """The file or folder that a tokenizer is named by; None for one of `KINDS`.

    Raises:
        MisconfigurationException: If it is neither.
    """
    if name in KINDS:
        return None
    for path in (Path(name), data_dir / name):
        if path.exists():
            return path
    raise MisconfigurationException(
        f"tokenizer is {name!r}: choose one of {', '.join(KINDS)}, or name a checkpoint, a "
        f"tokenizer.json or a Hugging Face folder; there is no file of that name here in "
        f"{Path.cwd()}, and none in {data_dir.resolve()}."
    )


def saved(path: Path) -> Tokenizer:
    """The tokenizer of a checkpoint, of a file `tokenizer.json` or of a Hugging Face folder.

    Raises:
        MisconfigurationException: If there is none.
    """
    if path.is_dir() and (path / "vocab.txt").is_file() and not (path / "tokenizer.json").is_file():
        return _of_pieces(_read_vocabulary(path / "vocab.txt"), lowercase=_lowercases(path))
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        if file.suffix == ".json":
            made = Tokenizer.from_str(file.read_text(encoding="utf-8"))
        else:
            content = torch.load(file, weights_only=True, map_location="cpu", mmap=True)
            made = Tokenizer.from_str(content["hyper_parameters"]["tokenizer"])
    except Exception as error:  # neither library raises anything more precise
        raise MisconfigurationException(
            f"tokenizer: {file} has none that can be read ({str(error).splitlines()[0]}): name a "
            "checkpoint of a net for texts, a tokenizer.json or a Hugging Face folder."
        ) from error
    made.no_truncation()
    made.no_padding()
    return made


def learn(
    kind: Kind,
    texts: Iterable[str],
    max_vocab_size: int = 30_000,
    min_count: int = 1,
    lowercase: bool = True,
    specials: Sequence[str] = (),
    data_dir: Path = Path("data"),
    punctuation: bool = True,
) -> Tokenizer:
    """A tokenizer of texts, without cutting and padding.

    Args:
        kind: `words`, `characters`, `bpe` (byte pairs), `wordpiece`, or `bert`: BERT's own uncased
            word pieces, which learn nothing here.
        texts: What to learn from: those that train, and no others.
        max_vocab_size: The most tokens there may be, those for padding and the like included.
        min_count: How often a word, character or pair must occur to become a token.
        lowercase: Read capital letters as small ones.
        specials: More tokens that no text is read as, such as "[BOS]"; they follow [PAD] and [UNK].
        data_dir: Where BERT's vocabulary is, or will be.
        punctuation: Of `words`: whether commas and the like are words, too, or left out.
    """
    normalizer = cleaning(lowercase)
    reserved = [PAD, UNK, *specials]
    if kind == "bert":
        return bert(data_dir)
    if kind == "wordpiece":
        return word_pieces(texts, max_vocab_size, min_count, lowercase, specials)
    if kind == "bpe":
        return byte_pairs(texts, max_vocab_size, reserved, normalizer, max(2, min_count))
    pattern = (WORD if punctuation else PLAIN_WORD) if kind == "words" else r"[\s\S]"
    split = pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)
    counted = Tokenizer(models.WordLevel(unk_token=UNK))
    counted.normalizer, counted.pre_tokenizer = normalizer, split
    counted.train_from_iterator(
        texts,
        trainers.WordLevelTrainer(
            vocab_size=max_vocab_size,
            min_frequency=min_count,
            special_tokens=reserved,
            show_progress=False,
        ),
    )
    # Made anew of its vocabulary: else the letters "[PAD]" in a text would be read as padding.
    tokenizer = Tokenizer(models.WordLevel(counted.get_vocab(), unk_token=UNK))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, split
    return tokenizer


def cleaning(lowercase: bool) -> normalizers.Normalizer:
    """What is done to a text before it is cut into tokens."""
    steps: list[normalizers.Normalizer] = [normalizers.Replace(Regex(LINE_BREAK), " ")]
    return normalizers.Sequence([*steps, normalizers.Lowercase()] if lowercase else steps)


def word_pieces(
    texts: Iterable[str],
    max_vocab_size: int,
    min_count: int,
    lowercase: bool,
    specials: Sequence[str] = (),
) -> Tokenizer:
    """WordPiece learnt from texts, each of which is read as [CLS] … [SEP] (Schuster 2012, BERT).

    The library numbers the letters within words ("##a") in an order that changes from run to run,
    and with them all that is learnt. A run that goes on must find the very same tokens: so the
    letters are looked up first, and then given to it in their order.
    """
    texts = list(texts)
    reserved = [PAD, UNK, CLS, SEP, MASK, *specials]
    letters = _learnt_pieces(texts, reserved, len(reserved), min_count, lowercase)
    within = sorted(name for name in letters if name.startswith("##") and name not in reserved)
    vocab = _learnt_pieces(texts, [*reserved, *within], max_vocab_size, min_count, lowercase)
    return _of_pieces(vocab, lowercase, specials)


def _learnt_pieces(
    texts: Iterable[str], first: list[str], max_vocab_size: int, min_count: int, lowercase: bool
) -> dict[str, int]:
    """A vocabulary that begins with the tokens told and has all letters, whatever its size."""
    tokenizer = _of_pieces({}, lowercase)
    trainer = trainers.WordPieceTrainer(
        vocab_size=max_vocab_size,
        min_frequency=min_count,
        special_tokens=first,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.get_vocab()


def _of_pieces(vocab: dict[str, int], lowercase: bool, specials: Sequence[str] = ()) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=UNK))
    tokenizer.normalizer = normalizers.Sequence(
        [cleaning(False), normalizers.BertNormalizer(lowercase=lowercase)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    if not vocab:
        return tokenizer
    tokenizer.add_special_tokens([PAD, UNK, CLS, SEP, MASK, *specials])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (CLS, SEP)],
    )
    return tokenizer


def bert(data_dir: Path) -> Tokenizer:
    """BERT's 30,522 uncased word pieces (Devlin et al. 2019), found or downloaded."""
    path = obtain(
        data_dir / "bert-base-uncased" / "vocab.txt",
        [BERT_URL],
        f"sha256:{BERT_SHA256}",
        offline_config="configs/source/gpt.yaml",
    )
    return _of_pieces(_read_vocabulary(path), lowercase=True)


def _read_vocabulary(path: Path) -> dict[str, int]:
    names = path.read_text(encoding="utf-8").split("\n")  # one a line; some are odd signs
    return {name: number for number, name in enumerate(names) if name}


def _lowercases(folder: Path) -> bool:
    """Whether the words of an old folder, which has no tokenizer.json, are uncased."""
    settings = folder / "tokenizer_config.json"
    told = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    return bool(told.get("do_lower_case", True))


def with_cutting_and_padding(tokenizer: Tokenizer, context: int) -> str:
    """The tokenizer as JSON: its `encode_batch` then gives what a net was trained on."""
    complete = Tokenizer.from_str(tokenizer.to_str())
    complete.enable_truncation(context)
    complete.enable_padding(pad_id=complete.token_to_id(PAD), pad_token=PAD)
    return complete.to_str()
