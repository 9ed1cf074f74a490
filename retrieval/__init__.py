"""Question answering over documents: documents, chunks, indexes, passages, answers."""
