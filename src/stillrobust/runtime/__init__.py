"""Cores, memory and GPUs; progress display, time estimates, run log, TensorBoard."""
