"""From first principles: NumPy networks, optimizers, tokenizers, BLEU and perplexity."""
