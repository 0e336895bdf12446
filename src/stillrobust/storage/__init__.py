"""Whole files, leases, downloads, and the store of results with its index."""
