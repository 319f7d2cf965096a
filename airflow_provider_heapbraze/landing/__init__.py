"""The receiver for what Heap and Braze push: Segments Sync webhooks and Currents batches.

:func:`.app.make_app` makes the ASGI app; ``python -m airflow_provider_heapbraze.landing`` serves it.
"""
