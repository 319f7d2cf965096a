"""What a ledger holds, whether it is whole, and what happens next: read only, in the words of an operator."""
