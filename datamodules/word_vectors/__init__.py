"""Running text and benchmarks for word vectors."""
