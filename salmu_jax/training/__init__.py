"""Training of the two foundation models: mesh, loss, optimizer, step, loop, checkpoints."""
