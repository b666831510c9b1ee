"""The battery: whole runs against a server of known truth, to judge the judgement (docs/battery.md)."""
