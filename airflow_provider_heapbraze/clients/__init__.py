"""The two HTTP APIs, Braze and Heap. Nothing here knows Airflow or what the requests are for."""
