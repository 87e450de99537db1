"""Chores beside the work, all of one shape: `run_once() -> int` on a shared ticker."""
