"""Compiled inner loops, which ``corruptions.compiled`` imports on first use: numba is slow."""
