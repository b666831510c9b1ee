"""Files that a scenario names: prompts, data sets of the hub, recorded traffic."""
