"""Cells, trials and the schedule of every request of a scenario; pure and seeded."""
