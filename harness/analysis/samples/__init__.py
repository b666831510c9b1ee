"""Numbers from the samples of a cell: readings of its machine, its GPUs and the pages of its servers."""
