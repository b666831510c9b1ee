"""From a scenario to cells, trials and the schedule of every request. Pure and seeded."""
