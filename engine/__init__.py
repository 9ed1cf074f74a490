"""Run folders, checkpoints, processes and guards, independent of tasks, networks and data sets."""

from engine.renamed import install

install()
