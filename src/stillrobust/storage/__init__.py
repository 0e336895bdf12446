"""Atomic file writes, leases, downloads, and the results store with its index."""
