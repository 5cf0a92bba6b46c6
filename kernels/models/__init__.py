"""Owns the families: each has `inputs`, `value` and `push`, which the driver takes as constexpr functions."""
