"""The stages of a run: each reads tables, calls the pure functions of its room, writes tables.

Every stage may be killed at any moment and run again: what it writes replaces or merges by key.
"""
