"""Callbacks that draw figures into the run folder."""
