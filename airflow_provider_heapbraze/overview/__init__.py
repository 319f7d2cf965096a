"""What a ledger shows to people: all its records at a glance, and the runs of one of them."""
