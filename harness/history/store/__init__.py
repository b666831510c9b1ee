"""Store of nights: a folder of files that never change, and the series that are put together from them."""
