"""Owns the families: each has `inputs`, `value` and `vjp`, which the driver takes as constexpr functions."""
