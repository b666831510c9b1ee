"""The parent and the child of a cell: engines, supervision, events, resuming."""
