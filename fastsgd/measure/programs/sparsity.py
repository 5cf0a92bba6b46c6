"""Owns the programs of feature sparsity: csrc/cuda/metrics/sparsity.h."""

from . import SUMS, program, shaped, spec


def feature_sparsity(form, P, samples, layers, normalise, within, most_shared):
    """Feature sparsity of hidden layers `layers` (1, 2, ...) of dense networks; within: a number for each layer."""
    sizes = form.sizes
    work = P + sum(sizes[1:-1]) * (samples | 1)
    fits = 8 * (SUMS + work) <= most_shared
    chosen = "".join(f"i == {i} ? {layer} : " for i, layer in enumerate(layers)) + "0"
    still = "".join(f"i == {i} ? {value!r} : " for i, value in enumerate(within)) + "0.0"
    made = spec(
        {"SAMPLES": samples, "LAYERS": len(layers), "WORK": work}, {"NORMALISE": normalise, "SHARED": fits},
        shaped(form), f"FS_HD static constexpr int layer(int i) {{ return {chosen}; }}",
        f"FS_HD static constexpr double within(int i) {{ return {still}; }}")
    return program(f"feature sparsity, {'-'.join(map(str, sizes))} on {samples} samples", "sparsity",
                   "feature_sparsity", made, whole=True, shared=8 * (SUMS + fits * work),
                   each=0 if fits else work)
