"""How to train: one module per procedure, shared pieces in parts."""
