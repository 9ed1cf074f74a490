"""Special tokens and the ignored target, shared by the data modules and the tasks."""

IGNORE_INDEX = -100  # targets excluded from the loss, as in torch.nn.functional.cross_entropy
PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"  # as in BERT
BOS, EOS = "[BOS]", "[EOS]"  # first and last token of a translation
END_OF_TEXT = "<|endoftext|>"  # between the documents of a language model's corpus, as in GPT-2
