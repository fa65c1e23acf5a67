"""GPU-accelerated graph analytics for sparse neural networks."""
