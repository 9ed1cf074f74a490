"""Guards that end a run early: signals, full disk, failed ranks, non-finite loss, preflight."""
