"""Membership sync: a set of people on one side is made equal to a set on the other."""
