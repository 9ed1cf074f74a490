"""What a run is: folder, checkpoints, processes, guards. Knows no task, network or data set."""

from engine.renamed import install

install()
