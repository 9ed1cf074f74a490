"""Stages of a system from data to a served model; dvc.yaml declares their order."""
