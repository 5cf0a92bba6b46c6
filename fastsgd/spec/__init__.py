"""Room one: frozen records of what is asked; NumPy only."""
