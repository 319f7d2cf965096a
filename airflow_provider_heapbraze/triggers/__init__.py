"""Triggers: what waits in the triggerer, with arguments that hold no secret.

Their arguments are kept in Airflow's database while tasks wait, and outlive an upgrade of this package. So a
name that was there once stays, a new one has a default, and a triggerer that is upgraded after the workers
passes over what it does not know (``_later``).
"""
