"""Questions about paragraphs of text."""
