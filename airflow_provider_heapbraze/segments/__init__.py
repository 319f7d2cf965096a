"""Braze's segments, read: exported, counted over time, and compared with what was delivered."""
