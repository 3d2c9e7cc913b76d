"""CSV, Parquet and Feather files as Arrow columns."""
