"""Versioned templates of prompts."""
