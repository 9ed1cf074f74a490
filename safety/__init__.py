"""Safety of language models: guard classifier, redaction of personal data, and evaluation."""
