"""Since when: nights of measurements, their changes, and what is told about them."""
