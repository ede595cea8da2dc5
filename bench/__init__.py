"""Compares Matrix with other proxies at the same job, on this machine; see README.md."""
