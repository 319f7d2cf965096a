"""Sensors: thin, with no business logic of their own."""
