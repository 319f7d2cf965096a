"""Triggers: what waits in the triggerer, with arguments that hold no secret."""
