"""Records: what `record` makes behaves as the frozen dataclass that it stands for, under users' own dataclasses too."""

import copy
import dataclasses
import inspect
import pickle

import numpy as np
import pytest

import fastsgd as fs
from fastsgd.spec.record import record

FROZEN = pytest.raises(dataclasses.FrozenInstanceError)


def pair(decorate, **given):
    """(a base, a class derived from it) with fields of every sort."""
    @decorate(**given)
    class Base:
        a: int
        b: dict = dataclasses.field(default_factory=dict)
        c: float | None = dataclasses.field(default=None, repr=False, kw_only=True)

        def __post_init__(self):
            object.__setattr__(self, "a", self.a + 1)

    @decorate(**given)
    class Derived(Base):
        b: dict = dataclasses.field(default_factory=lambda: {"x": 1})
        d: str = "d"

    return Base, Derived


def twins(**given):
    """The same classes by `record`, and by `dataclass(frozen=True)`."""
    return zip(pair(record, **given), pair(lambda **more: dataclasses.dataclass(frozen=True, **more), **given),
               strict=True)


@pytest.mark.parametrize("eq", (False, True))
@pytest.mark.parametrize("kw_only", (False, True))
def test_a_record_is_what_a_frozen_dataclass_is(eq, kw_only):
    for ours, theirs in twins(eq=eq, kw_only=kw_only):
        assert dataclasses.is_dataclass(ours) and str(inspect.signature(ours)) == str(inspect.signature(theirs))
        assert ours.__match_args__ == theirs.__match_args__
        made = [kind(a=1, c=2.0) for kind in (ours, theirs)]
        assert repr(made[0]) == repr(made[1]) and vars(made[0]) == vars(made[1])
        about = [[(f.name, f.type, f.kw_only, f.repr) for f in dataclasses.fields(kind)] for kind in (ours, theirs)]
        assert about[0] == about[1]
        for kind in (ours, theirs):
            one, two = kind(a=1), dataclasses.replace(kind(a=5), a=1)
            assert (one == two) is eq and one.b is not kind(a=1).b and one.a == 2
            with FROZEN:
                one.a = 3
            with FROZEN:
                del one.a
            with FROZEN:
                one.other = 3
            with pytest.raises(TypeError, match=r"__init__\(\) got an unexpected keyword argument 'e'"):
                kind(a=1, e=2)
            with pytest.raises(TypeError, match=r"__init__\(\) missing 1 required"):
                kind()


def test_equal_records_have_equal_hashes():
    assert len({fs.metrics.TrainLoss(), fs.metrics.TrainLoss(), fs.metrics.TestLoss()}) == 2
    assert fs.Tuning(threads=2) == fs.Tuning(threads=2) != fs.Tuning(threads=1)
    assert fs.metrics.TrainLoss("loss") != fs.metrics.TestLoss("loss")


def test_dataclasses_of_ones_own_build_on_records():
    @dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
    class Mine(fs.rules.SGD):
        more: float = 1.0

    with pytest.raises(TypeError, match="cannot inherit non-frozen dataclass from a frozen one"):
        dataclasses.dataclass(type("Thawed", (fs.rules.SGD,), {}))
    mine = Mine(more=2.0, batch_size=3)
    assert (mine.more, mine.batch_size, dataclasses.replace(mine, momentum=0.5).more) == (2.0, 3, 2.0)
    with FROZEN:
        mine.more = 3.0


def test_a_subclass_that_is_no_dataclass_has_attributes_of_its_own():
    class Noted(fs.models.DiagonalLinear):
        pass

    noted = Noted(3)
    noted.note = "mine"
    del noted.note
    with FROZEN:
        noted.d = 4


def test_copies_and_pickles_are_whole():
    run = fs.Run(fs.models.DiagonalLinear(3), fs.Dataset(np.eye(3), np.ones(3)), fs.rules.SGD(), 0.1, 5)
    for again in (copy.copy(run), copy.deepcopy(run), pickle.loads(pickle.dumps(run))):
        assert again.steps == 5 and again.order == run.order and type(again.rule) is fs.rules.SGD
