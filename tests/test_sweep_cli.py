"""The command line of sweeps, and what TOML says of them."""

import numpy as np
import pytest

import fastsgd as fs
from fastsgd import cli, config
from fastsgd.spec import codec

CONFIG = """
steps = 40
dtype = "float64"
model = {type = "DiagonalLinear", d = 6}
data = {type = "sparse_regression", n = 12, d = 6, nonzero = 2, n_test = 8}
rule = {type = "SGD"}
step_size = 0.1
save = {linear = 3}
metrics = [{type = "TestLoss"}]
"""
SWEEP = CONFIG + """
[sweep]
replicas = 4
[sweep.grid]
step_size = {logspace = [0.01, 1.0, 3]}
rule.momentum = [0, 0.9]
"""


@pytest.fixture
def toml(tmp_path):
    path = tmp_path / "phase.toml"
    path.write_text(SWEEP)
    return path


@pytest.fixture
def fastsgd(monkeypatch, capsys):
    """Runs a command in this process; gives (status, out, err)."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["fastsgd", *map(str, arguments)])
        with pytest.raises(SystemExit) as status:
            cli.main()
            raise SystemExit(0)
        out, err = capsys.readouterr()
        return status.value.code or 0, out, err

    return run


def test_a_file_says_what_python_says(toml):
    run = config.read(toml.with_name("run.toml")) if toml.with_name("run.toml").write_text(CONFIG) else None
    read = config.read_sweep(toml)
    same = fs.Sweep(run, grid={"step_size": np.geomspace(0.01, 1, 3), "rule.momentum": [0, 0.9]}, replicas=4)
    assert codec.fingerprint(read) == codec.fingerprint(same)
    toml.write_text(CONFIG + """
[sweep]
draws = "own"
keep = {networks = 5, weights = true}
reduce = ["Moments", {type = "Quantiles", at = [0.5]}]
[sweep.zip]
model.u0 = {linspace = [0.1, 0.3, 3]}
steps = [10, 20, 30]
[[sweep.cases]]
seed = 1
rule.momentum = 0.5
[[sweep.cases]]
seed = 2
rule.momentum = 0.6
[sweep.random]
points = 4
seed = 9
fields = {step_size.base = {log = [0.1, 1.0]}, rule.weight_decay = {linear = [0.1, 0.2]}}
""")
    same = fs.Sweep(run, zip={"model.u0": np.linspace(0.1, 0.3, 3), "steps": [10, 20, 30]},
                    cases=[{"seed": 1, "rule.momentum": 0.5}, {"seed": 2, "rule.momentum": 0.6}],
                    random=fs.sweep.Random({"step_size.base": ("log", 0.1, 1.0), "rule.weight_decay": (
                        "linear", 0.1, 0.2)}, 4, 9), draws="own", keep=fs.Keep(5, True),
                    reduce=[fs.reduce.Moments(), fs.reduce.Quantiles(0.5)])
    assert codec.fingerprint(config.read_sweep(toml)) == codec.fingerprint(same)


@pytest.mark.parametrize(("line", "words"), [
    ("rule.momentun = [0]", "did you mean 'momentum'.*line 16"), ("stpes = [1]", "did you mean 'steps'.*line 16"),
    ("steps = {logspace = [0, 1, 3]}", "logspace"), ("steps = {linspace = [0, 1]}", "linspace"),
    ("steps = 3", "expected a list"), ("[sweep.keep]\nnetwork = 3", "did you mean 'networks'.*line 17"),
    ("[sweep.zap]", "did you mean 'zip'"), ("[sweep.random]\npoints = 3", "fields"),
    ("[sweep.random]\npoints = 3\nfields = {steps = {log = 3}}", "log = "),
    ("[sweep.zip]\nx = [1]", "did you|legal are"),
])
def test_odd_sweeps_in_a_file(toml, line, words):
    toml.write_text(SWEEP + line)
    with pytest.raises(fs.SpecError, match=f"(?s){words}"):
        config.read_sweep(toml)


def test_unknown_keys_have_lines_and_near_names(toml):
    toml.write_text(CONFIG.replace("linear = 3", "liner = 3"))
    with pytest.raises(fs.SpecError, match=r"did you mean 'linear'\? \(line 8 of"):
        config.read(toml)
    toml.write_text(CONFIG.replace('"SGD"', '"SDG"'))
    with pytest.raises(fs.SpecError, match="did you mean 'SGD'"):
        config.read(toml)
    toml.write_text(SWEEP)
    with pytest.raises(fs.SpecError, match="sweep run"):
        config.read(toml)


def test_changes_stand_above_the_file(toml):
    toml.write_text(CONFIG)
    run = config.read(toml, ["rule.momentum=0.5", "step_size.decay_at=0.5", "step_size.decay_by=2", "model.type=ReLU2",
                             "model.width = 3", "ids=[1,2]", "networks=9"])
    assert (run.rule.momentum, run.step_size.base, run.step_size.decay_at) == (0.5, 0.1, 0.5)
    assert isinstance(run.model, fs.models.ReLU2) and run.ids.tolist() == [1, 2]
    for bad in ("steps", "=3", "rule..x=3", "steps.x=3"):
        with pytest.raises(fs.SpecError, match="--set"):
            config.read(toml, [bad])


def test_run_work_status(toml, fastsgd, tmp_path):
    pytest.importorskip("zarr")
    status, out, _ = fastsgd("sweep", "run", toml, "--dry-run", "--size", 6)
    assert status == 0 and "24 networks in 6 cells" in out and "6 ranges" in out
    assert not (tmp_path / "phase.zarr").exists() and fastsgd("sweep", "plan", toml, "--size", 6)[1] == out
    store = tmp_path / "phase.zarr"
    status, out, _ = fastsgd("sweep", "create", toml, store, "--size", 4)
    assert status == 0 and "6 of 6 ranges are missing" in out
    status, out, err = fastsgd("sweep", "work", store, "--shard", "1/3", "--threads", 1)
    assert status == 0 and "2 ranges done here" in out and err.count("\n") == 2
    status, out, _ = fastsgd("sweep", "status", store, "--check")
    assert status == 0 and "2 of 6 done" in out
    status, out, _ = fastsgd("sweep", "run", toml, "--set", "sweep.replicas=5")
    assert status == 0 and "30 of 30 done" in out
    path = next(store.glob("g*/lost/c.0"))
    path.write_bytes(path.read_bytes()[:-1])
    status, out, _ = fastsgd("sweep", "status", store)
    assert status == 1 and "damaged   1 ranges" in out
    for arguments in (("work", store, "--shard", "x"), ("work", tmp_path / "none"), ("status", toml), (
            "work", store, "--stale", "0"), ("run", toml, "--set", "steps=41")):
        status, _, err = fastsgd("sweep", *arguments)
        assert status == 2 and err.count("\n") == 1, err


def test_ids_of_a_run(toml, fastsgd, tmp_path):
    toml.write_text(CONFIG)
    out = tmp_path / "r.npz"
    assert fastsgd("run", toml, "--out", out, "--ids", "2:4,7", "--set", "networks=9")[0] == 0
    assert fs.Result.load(out).ids.tolist() == [2, 3, 7]
    for bad in ("a", "3:1", "1:2:3", "-1:4", ""):
        assert fastsgd("run", toml, "--out", out, "--ids", bad)[0] == 2
