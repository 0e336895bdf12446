"""The machine and what is told of long work: cores, memory and GPUs, progress, time left, logs,
curves.
"""
