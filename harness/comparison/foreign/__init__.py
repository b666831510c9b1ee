"""Result files of other load generators, read into one form: what they measured, and what it means."""
