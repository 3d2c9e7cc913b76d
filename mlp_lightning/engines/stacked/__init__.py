"""Many networks as one: batched products along a leading member axis, gradients written out."""
