"""The engine for one ordinary MLP: gradients written out, all parameters in one flat tensor."""
