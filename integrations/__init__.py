"""Adapters of models of this project to other libraries."""
