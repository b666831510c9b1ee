"""Quality of a quantization level against a reference. Pure: nothing here starts a process."""
