"""The parts of the library from first principles: NumPy networks, tokenizers, optimizers, BLEU."""
