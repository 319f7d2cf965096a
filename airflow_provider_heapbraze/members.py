"""What the author of a DAG needs to say who is in a segment, who they are in Braze, and what is too much."""

from __future__ import annotations

from airflow_provider_heapbraze.heap_connect.members import HeapConnectMembers
from airflow_provider_heapbraze.membership.guards import Guards
from airflow_provider_heapbraze.membership.heap_query import heap_segment_query
from airflow_provider_heapbraze.membership.identity import IdentityMapping
from airflow_provider_heapbraze.membership.members import FileMembers, SqlMembers
from airflow_provider_heapbraze.segments_sync.members import SegmentSyncMembers

__all__ = [
    "FileMembers",
    "Guards",
    "HeapConnectMembers",
    "IdentityMapping",
    "SegmentSyncMembers",
    "SqlMembers",
    "heap_segment_query",
]
