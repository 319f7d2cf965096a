"""Heap Connect's dumps in object storage: tables that a query finds a segment's members in."""
