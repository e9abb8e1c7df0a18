"""The engine: plans, runs, records and exports studies; names no procedure."""
