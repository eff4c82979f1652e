"""Commands beside the two stages: report, compare, sweep, export_model."""
