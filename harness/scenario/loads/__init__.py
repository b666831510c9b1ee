"""The loads of a scenario: their kinds, their rates, and what is sent again."""
