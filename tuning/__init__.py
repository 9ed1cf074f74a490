"""Hyper-parameter search: search files, studies, trials and reports."""
