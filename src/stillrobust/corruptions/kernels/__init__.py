"""Compiled inner loops, loaded by ``corruptions.compiled`` at first use: numba imports slower than
all the rest.
"""
