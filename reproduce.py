"""Run configs, hold each against the result it promises, and write docs/results.md."""
