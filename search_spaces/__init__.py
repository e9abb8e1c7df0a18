"""What is varied, as data: one module per procedure."""
