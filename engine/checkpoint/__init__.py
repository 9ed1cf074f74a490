"""Writing, reading, resuming and sharding of checkpoints."""
