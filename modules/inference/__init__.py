"""Generation, beam search and loading of trained models."""
