"""Compiled inner loops, loaded by ``corruptions.compiled`` at first use: numba imports slowly."""
