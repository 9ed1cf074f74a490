"""Callbacks that stop a run before it does harm: full disk, lost processes, non-finite loss."""
