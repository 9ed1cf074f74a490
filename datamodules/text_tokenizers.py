"""The tokenizers of single texts: words, characters, byte pairs or word pieces, learnt from them.

Each is a `tokenizers.Tokenizer` and so one JSON string. Unlike those of `tokenization.py`, which
keep a long text exactly as it is, these have [PAD] (number 0 where they are learnt here), [UNK] for
what was not in the texts learnt from, and may make a text lower case first. All that happens to a
raw text stands in the JSON: the markup that is removed, the cutting, the padding.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from datamodules.files import obtain
from datamodules.tokenization import byte_pairs

Kind = Literal["words", "characters", "bpe", "wordpiece", "bert"]
KINDS: tuple[str, ...] = get_args(Kind)
PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
# A word, the end of a contracted one, or any other sign: don't → don 't, film's → film 's.
PLAIN_WORD = r"\w+|'(?:s|t|re|ve|m|ll|d)\b"
WORD = PLAIN_WORD + r"|[^\w\s]"
LINE_BREAK = r"<br\s*/?>"  # the only markup of the IMDB reviews
BERT_URL = "https://huggingface.co/google-bert/bert-base-uncased/resolve/main/vocab.txt"
BERT_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"


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
    """WordPiece learnt from texts, each of which is read as [CLS] … [SEP] (Schuster 2012, BERT)."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNK))
    tokenizer.normalizer = normalizers.Sequence(
        [cleaning(False), normalizers.BertNormalizer(lowercase=lowercase)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=max_vocab_size,
        min_frequency=min_count,
        special_tokens=[PAD, UNK, CLS, SEP, MASK, *specials],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _framed(tokenizer)


def bert(data_dir: Path) -> Tokenizer:
    """BERT's 30,522 uncased word pieces (Devlin et al. 2019), found or downloaded."""
    path = obtain(
        data_dir / "bert-base-uncased" / "vocab.txt",
        [BERT_URL],
        f"sha256:{BERT_SHA256}",
        no_download="configs/source/gpt.yaml",
    )
    names = path.read_text(encoding="utf-8").split("\n")  # one a line; some are odd signs
    vocab = {name: number for number, name in enumerate(names) if name}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocab, unk_token=UNK))
    tokenizer.normalizer = normalizers.Sequence(
        [cleaning(False), normalizers.BertNormalizer(lowercase=True)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([PAD, UNK, CLS, SEP, MASK])
    return _framed(tokenizer)


def _framed(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (CLS, SEP)],
    )
    return tokenizer


def with_cutting_and_padding(tokenizer: Tokenizer, context: int) -> str:
    """The tokenizer as JSON: its `encode_batch` then gives what a net was trained on."""
    complete = Tokenizer.from_str(tokenizer.to_str())
    complete.enable_truncation(context)
    complete.enable_padding(pad_id=complete.token_to_id(PAD), pad_token=PAD)
    return complete.to_str()
