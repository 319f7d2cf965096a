"""What operators do when their task runs. Each imports its half in ``execute``.

The modules of the operators hold what the author of a DAG writes and Airflow reads, and little else is loaded
with them: a DAG file is parsed every few seconds, and does not pay for the engines.
"""
