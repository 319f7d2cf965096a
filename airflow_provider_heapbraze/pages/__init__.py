"""HTML of what the ledger knows: pictures, pages and self-contained reports."""
