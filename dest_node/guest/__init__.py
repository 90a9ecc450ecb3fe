"""The guest at the destination: its vCPUs, and the ledger of what they wrote."""
