"""Heap's Segments Sync: pages that were pushed become the present members of a segment."""
