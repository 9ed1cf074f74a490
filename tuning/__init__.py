"""Hyper-parameter search: search file, study, trials, report."""
