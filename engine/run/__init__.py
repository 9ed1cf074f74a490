"""The run folder: record, CSV log, trackers, figures, console output."""
