"""The draw contract: known answers, an independent Philox, and the same words from Python and C++."""

import numpy as np
import pytest

import fastsgd as fs
from fastsgd.models import base
from fastsgd.native import native
from fastsgd.spec import draws, elementary

KNOWN = [  # counter, key, answer: the known-answer vectors of Random123 (philox4x32, 10 rounds)
    ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0],
     [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(counter, key, answer):
    assert draws.philox(counter, key[0] | key[1] << 32).tolist() == answer


def test_an_independent_implementation():
    randomgen = pytest.importorskip("randomgen")
    for seed, counter in ((12345678901234567, [5, 17, 0, 2]), (7, [0, 4000000000, 3, 1])):
        packed = sum(word << 32 * k for k, word in enumerate(counter)) - 1  # randomgen steps its counter before drawing
        other = randomgen.Philox(counter=packed % 2**128, key=seed, number=4, width=32)
        assert draws.philox(counter, seed).tolist() == other.random_raw(4).tolist()


def test_cpp_draws_the_same_words():
    for seed, network, block, item in ((0, 0, 0, 0), (2**63 + 12345, 4_000_000_000, 999, 3)):
        want = draws.words(seed, [network], 4 * block, 4 * (block + 5), "order", item)[0]
        np.testing.assert_array_equal(native().random_words(seed, network, block, item, 5), want)


def test_a_window_of_steps_is_a_part_of_the_whole():
    whole = draws.indices(3, [9, 2], 0, 40, 17)
    for t0, t1 in ((0, 1), (5, 6), (7, 23), (38, 40)):
        np.testing.assert_array_equal(draws.indices(3, [9, 2], t0, t1, 17), whole[:, t0:t1])


def test_indices_are_uniform_and_streams_differ():
    index = draws.indices(1, np.arange(200), 0, 1000, 7)
    assert index.min() == 0 and index.max() == 6
    count = np.bincount(index.ravel(), minlength=7)
    assert np.abs(count / count.sum() - 1 / 7).max() < 4 * np.sqrt(1 / 7 / index.size)
    assert (draws.words(1, [0], 0, 99, "order") != draws.words(1, [0], 0, 99, "init")).any()


def test_normals():
    z = draws.normals(5, np.arange(2000), 0, 100, "init")
    assert abs(z.mean()) < 4 / np.sqrt(z.size) and abs(z.std() - 1) < 4 / np.sqrt(2 * z.size)
    assert abs(np.mean(z**4) - 3) < 0.05 and np.corrcoef(z[:, 0], z[:, 1])[0, 1] < 0.1
    np.testing.assert_array_equal(draws.normals(5, [7], 0, 31, "init")[0], z[7, :31])


def test_normals_by_step_and_item():
    whole = draws.normals(5, [3, 9], 0, 40, "label_noise", item=2)
    for t0, t1 in ((0, 1), (5, 6), (7, 23), (38, 40), (4, 4)):
        np.testing.assert_array_equal(draws.normals(5, [3, 9], t0, t1, "label_noise", item=2), whole[:, t0:t1])
    assert not np.isin(draws.normals(5, [3, 9], 0, 40, "label_noise", item=1), whole).any()
    assert not np.isin(draws.normals(5, [3, 9], 0, 40, "init", item=2), whole).any()


def test_first_normals_are_pinned():
    """Starts of runs rest on these bits."""
    want = ["0x1.9c96fcadba75dp+0", "0x1.18050615cf6b9p+1", "0x1.63a33e1b3507ep-1"]
    assert [float(z).hex() for z in draws.normals(0, [0], 0, 3, "init")[0]] == want


def test_cpp_draws_the_same_normals():
    ids = np.array([0, 1, 7, 12, 99, 1000, 4_000_000_000, 5, 6, 21, 22], np.uint32)  # eight together, three alone
    for seed, t0, t1, stream, item in ((0, 0, 2000, "init", 0), (2**63 + 5, 12_345, 12_400, "label_noise", 3)):
        want = draws.normals(seed, ids, t0, t1, stream, item)
        assert native().normals(seed, ids, t0, t1, draws.STREAMS[stream], item).tobytes() == want.tobytes()


def test_signs():
    signs = draws.signs(3, np.arange(100), 5, 1005, "label_noise")
    assert set(np.unique(signs)) == {-1.0, 1.0} and abs(signs.mean()) < 4 / np.sqrt(signs.size)
    np.testing.assert_array_equal(signs > 0, draws.words(3, np.arange(100), 5, 1005, "label_noise") >> 31 == 0)


def test_permutation_is_a_bijection_and_cpp_has_the_same():
    ids = np.array([0, 3, 4_000_000_000, 1, 2, 5, 6, 7, 8], np.uint32)
    for n in range(1, 201):
        positions = np.arange(n, dtype=np.uint32)
        index = draws.permutation(7, ids, n, n, positions, item=n % 3)
        assert (np.sort(index, axis=1) == positions).all()
        np.testing.assert_array_equal(native().permutation(7, ids, n, n, positions, n % 3), index)


@pytest.mark.parametrize("n", [2**20, 10**6 + 3])
def test_a_large_permutation(n):
    index = native().permutation(1, np.array([5], np.uint32), 2, n, np.arange(n, dtype=np.uint32))[0]
    assert (np.bincount(index, minlength=n) == 1).all()
    np.testing.assert_array_equal(draws.permutation(1, [5], 2, n, [0, 1, n - 1])[0], index[[0, 1, n - 1]])


@pytest.mark.parametrize("n", [2**31 + 5, 2**32 - 1])
def test_a_huge_permutation(n):
    positions = np.append(np.arange(5000), n - 1 - np.arange(5000))
    index = draws.permutation(1, [5], 0, n, positions)[0]
    assert len(np.unique(index)) == 10_000 and index.min() >= 0 and index.max() < n
    assert abs(index.mean() / n - 0.5) < 4 / np.sqrt(12 * 10_000)
    same = native().permutation(1, np.array([5], np.uint32), 0, n, positions.astype(np.uint32))[0]
    np.testing.assert_array_equal(same, index)


def chi_square(count):
    """How many standard deviations Pearson's statistic lies above its mean under equal probabilities."""
    expected, free = count.sum() / count.size, count.size - 1
    return (((count - expected) ** 2 / expected).sum() - free) / np.sqrt(2 * free)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_all_orders_are_equally_likely(n):
    ids, factorial = np.arange(200_000, dtype=np.uint32), [1, 1, 2, 6, 24, 120, 720][n]
    index = native().permutation(11, ids, 0, n, np.arange(n, dtype=np.uint32)).astype(np.int64)
    order = np.unique(index @ n ** np.arange(n), return_counts=True)[1]
    assert order.size == factorial and chi_square(order) < 4


@pytest.mark.parametrize("n", [7, 17, 64, 80, 100])
def test_places_pairs_and_gaps_are_uniform(n):
    index = native().permutation(12, np.arange(100_000, dtype=np.uint32), 1, n, np.arange(n, dtype=np.uint32))
    index = index.astype(np.int64)
    assert max(chi_square(np.bincount(index[:, i], minlength=n)) for i in range(n)) < 6
    for i, j in ((0, 1), (0, n - 1), (n // 2, n // 2 + 1)):
        pairs = np.bincount(index[:, i] * n + index[:, j], minlength=n * n).reshape(n, n)
        assert chi_square(pairs[~np.eye(n, dtype=bool)]) < 5
    gaps = np.diff(index, axis=1) % n
    assert max(chi_square(np.bincount(gaps[:, i], minlength=n)[1:]) for i in range(n - 1)) < 6


def test_epochs_are_independent():
    first = np.array([draws.permutation(3, np.arange(50), key, 5, [0])[:, 0] for key in range(400)])
    joint = np.bincount((first[:-1] * 5 + first[1:]).ravel(), minlength=25)
    assert chi_square(joint) < 4


def test_elementary_functions():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.random(10_000), np.geomspace(1e-300, 1e300, 10_000), 1 + 1e-9 * rng.standard_normal(1000)])
    np.testing.assert_allclose(elementary.log(x), np.log(x), rtol=4e-16, atol=1e-17)
    u = np.concatenate([rng.random(10_000), np.arange(8) / 8])
    sin, cos = elementary.sincos_turns(u)
    np.testing.assert_allclose(sin, np.sin(2 * np.pi * u), atol=2e-15)
    np.testing.assert_allclose(cos, np.cos(2 * np.pi * u), atol=2e-15)


def test_order_of_a_run_is_the_contract():
    """What the kernels trained on is what `draws.indices` says: read back from a model that adds up its samples."""
    n = 5
    data = fs.Dataset(np.eye(n), np.zeros(n))
    run = fs.Run(fs.models.DiagonalLinear(n, u0=1.0, v0=1.0), data, fs.rules.SGD(), 2.0**-20, 1, networks=64, seed=11,
                 dtype="float64")
    moved = fs.train(run).weights[:, :n] != 1
    np.testing.assert_array_equal(moved.argmax(axis=1), draws.indices(11, np.arange(64), 0, 1, n)[:, 0])


@pytest.mark.parametrize("dtype", ("float32", "float64"))
@pytest.mark.parametrize("model", (fs.models.DiagonalLinear(3, u0=np.linspace(-1, 1, 50), v0=-0.0),
                                   fs.models.ReLU2(5, 60, W1_scale=np.linspace(0, 1, 50)), fs.models.MLP(3, (4, 4))),
                         ids=("means", "deviations", "layers"))
def test_cpp_draws_the_same_starts(model, dtype, monkeypatch):
    for seed, ids, keys in ((3, np.arange(50), None), (2**63, np.array([3, 49, 0]), np.array([7, 7, 2**32 - 1]))):
        got, fine = base.started(model, seed, ids, keys, dtype)
        with monkeypatch.context() as patched:
            patched.setattr(base, "native", nothing_compiled)
            want, _ = base.started(model, seed, ids, keys, dtype)
        assert got.dtype == dtype and got.tobytes() == want.tobytes() and fine


def nothing_compiled():
    raise fs.BackendUnavailable("as on a machine without compiled modules")


def test_starts_of_many_networks_are_those_of_few():
    model, N = fs.models.ReLU2(7, 30), 300  # more than a thread's piece
    many, _ = base.started(model, 5, np.arange(N), None, "float64")
    for k in range(N):
        assert many[k].tobytes() == base.started(model, 5, [k], None, "float64")[0].tobytes()
    assert not base.started(fs.models.ReLU2(7, 30, W1_scale=1e39), 5, [0], None, "float32")[1]
