"""Reading and tokenizing text."""
