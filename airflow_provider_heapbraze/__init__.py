"""Move people and events between Heap and Braze from Apache Airflow."""

__version__ = "0.1.0"
