"""A run on disk: manifest, Arrow streams, Parquet files, and the page that describes them."""
