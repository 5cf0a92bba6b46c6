"""Own models, losses and penalties: a torch function becomes a graph, a graph becomes compiled code."""
