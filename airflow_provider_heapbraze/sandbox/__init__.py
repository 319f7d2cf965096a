"""A stand-in Braze and Heap on this machine: for demos, for tests and for users' own CI.

It is written from the vendors' public contracts alone and shares no code with what it checks. Importing this
package loads nothing; ``server`` starts it in this process, ``python -m`` starts it as a process of its own,
``pytest_plugin`` gives tests a fixture, ``connections`` tells Airflow where it is.
"""
