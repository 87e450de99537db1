"""Cleanup: what is old is deleted, and counted before."""
