"""What came out: records to statistics, tables, figures and a report."""
