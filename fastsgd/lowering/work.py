"""Owns a run in the words of kernels: a Work, plain data. Only here is asked what kind of record a run has."""

from functools import cached_property

import numpy as np

from ..models.base import form_of
from ..models.exact import exact
from ..spec.check import used
from ..spec.kinds import kind_of, unknown
from ..spec.record import like
from . import contract, own

# Hyper-parameters and flags of rules that look at each parameter by itself, as core/rules/update.h's Update::each
EACH = {"momentum", "weight_decay", "beta1", "beta2", "epsilon"}
EACH_SO = {"nesterov", "decoupled", "adam"}


def _computed(run):
    """The run that kernels compute of one that is asked for."""
    model, data, loss = exact(run.model, run.data, run.loss)
    return run if data is run.data else like(run, model=model, data=data, loss=loss)


class Work:
    """What a run is to kernels. Everything is worked out when somebody asks for it, and kept.

    asked: the run it was made of; run: the one that is computed, which is another where the loss is an expectation
    """

    def __init__(self, run):
        self.asked, self.run = run, _computed(run)
        run = self.run
        self.dtype, self.item = run.dtype, np.dtype(run.dtype).itemsize
        self.d, self.n, self.P, self.outputs = run.model.d, run.data.n, run.model.P, run.model.outputs
        self.full, self.batch = run.rule.full, run.rule.batch(run.data.n)
        self._made = {}

    def made(self, make):
        """make(self), which a backend makes of the run at every load alike; made once."""
        if make not in self._made:
            self._made[make] = make(self)
        return self._made[make]

    # ---- the network

    @cached_property
    def form(self):
        """The Form of the model, None where it is traced."""
        return form_of(self.run.model)

    @property
    def linear(self):
        """Whether h(x) = <beta, x>, and kernels know it."""
        return self.form is not None and self.form.linear

    @property
    def dense(self):
        """Whether kernels know the model as a dense network."""
        return self.form is not None and self.form.name == "dense"

    @property
    def fused_form(self):
        """What the fused loops know of the form, None where they have no loop for it."""
        return None if self.form is None else self.form.fused

    @cached_property
    def packing(self):
        """The Packing of the Triton kernels, None without one."""
        return None if self.form is None else self.form.packing()

    @cached_property
    def fixed(self):
        """[P] bool: parameters that stay as they are; None if there are none."""
        model = self.run.model
        parts = [np.full(int(np.prod(shape)), not model.trained(name)) for name, shape in model.shapes().items()]
        fixed = np.concatenate(parts)
        return fixed if fixed.any() else None

    # ---- the loss

    @cached_property
    def loss(self):
        """The word for the loss; "traced" is one of a user's own."""
        return "traced" if own.own_loss(self.run.loss) else self.run.loss.name

    @property
    def squared(self):
        """Whether the loss is factor (h(x) - y)^2, without weights."""
        return self.loss == "squared" and self.run.loss.weights is None

    @cached_property
    def losses(self):
        """Numbers of the loss that each network has of its own, its bound among them; 0 where all share them."""
        own, weights = self.run.loss.own(), self.outputs if self.loss == "squared" else 0
        if not own and np.ndim(self.run.rule.lost_above) == 0:
            return 0
        if self.loss == "traced":
            return 2 + sum(int(np.prod(self.run.loss.shape(name))) for name in own if name != "factor")
        return 2 + weights

    def own_losses(self, which):
        """[M, losses] float64 of the networks `which` [M] of the run: bound, factor, and the others; see losses.h."""
        loss, most, M = self.run.loss, self.run.rule.lost_above, len(which)
        numbers = loss.numbers()
        if self.squared:
            numbers |= {"weights": np.ones(self.outputs)}
        elif self.loss == "traced" and not loss.own():
            numbers = {"factor": loss.factor}
        own, most = set(loss.lengths()), np.asarray(most, np.float64)
        rows = np.empty((M, self.losses))
        rows[:, 0] = np.minimum(loss.picked(which).bound(most[which] if most.ndim else most, self.dtype),
                                float(np.finfo(self.dtype).max))
        at = 1
        for name, a in numbers.items():
            a = a[which].reshape(M, -1) if f"loss.{name}" in own else np.ravel(a)
            rows[:, at:at + a.shape[-1]] = a
            at += a.shape[-1]
        return rows

    @cached_property
    def _loss(self):
        """The loss of the first network: that of all, where they share one."""
        return self.run.loss.picked(0)

    @property
    def factor(self):
        return self._loss.factor

    @property
    def loss_weights(self):
        """[o] in the run's dtype, None without them."""
        weights = None if self.loss == "traced" else getattr(self._loss, "weights", None)
        return None if weights is None else np.asarray(weights, self.dtype)

    @cached_property
    def bound(self):
        """Beyond which a sample's output or residual makes a network lost."""
        return float(self._loss.bound(float(np.ravel(self.run.rule.lost_above)[0]), self.dtype))

    @cached_property
    def labels(self):
        """Numbers in a row of y."""
        return int(np.prod(own.labels(self.run), dtype=int))

    # ---- the rule

    @cached_property
    def traits(self):
        """{flag: whether the rule is so}, and "perturb"."""
        return {"perturb": "none"} | dict.fromkeys(contract.FLAGS, False) | self.run.rule.traits()

    @property
    def update_text(self):
        """C++ of the fields of core/rules/update.h's Update."""
        uses = sum(1 << contract.HYPERS.index(name) for name in self.hyper)
        flags = sum(bool(self.traits[name]) << k for k, name in enumerate(contract.FLAGS))
        return f"{uses}u, {flags}u, fs::Update::{self.traits['perturb'].upper()}, nullptr, {len(self.buffers)}"

    @cached_property
    def hyper(self):
        """Names of the hyper-parameters in use."""
        return tuple(name for name in self.run.rule.numbers() if name in contract.HYPERS)

    @cached_property
    def constants(self):
        """Names of the numbers of a rule of one's own."""
        return tuple(name for name in self.run.rule.numbers() if name not in contract.HYPERS)

    def constants_of(self, numbers):
        """[N, how many] in the run's dtype, of a plan's numbers {name: [N]}; empty without any."""
        made = [numbers[name] for name in self.constants]
        return np.ascontiguousarray(np.stack(made, axis=1) if made else np.empty((0, 0)), self.dtype)

    @cached_property
    def buffers(self):
        """Names of what a network carries besides its weights."""
        return self.run.rule.buffers()

    @cached_property
    def sizes(self):
        """Parameters of each named array."""
        return [int(np.prod(shape)) for shape in self.run.model.shapes().values()]

    @property
    def groups(self):
        """Named arrays that have numbers of their own, 0 where all have the same."""
        return len(self.sizes) if self.traits["grouped"] else 0

    @cached_property
    def ends(self):
        """[2 G + 1] int32: where named arrays begin and end, and the rows of those that a rule takes for matrices, else
        0; None where all have the same numbers.
        """
        if not self.groups:
            return None
        rows = [shape[0] if shape in self.matrices else 0 for shape in self.run.model.shapes().values()]
        return np.concatenate([[0], np.cumsum(self.sizes), rows]).astype(np.int32)

    @cached_property
    def matrices(self):
        """Shapes of the matrices that the rule looks at as such."""
        shapes = self.run.model.shapes().values() if self.run.rule.matrices else ()
        return {shape for shape in shapes if len(shape) == 2}

    @property
    def scratch(self):
        """Numbers that a network needs beside its rows for the largest of its matrices; orthogonal.h says what for."""
        return max((2 * min(shape)**2 + shape[0] * shape[1] for shape in self.matrices), default=0)

    @cached_property
    def noises(self):
        """{"label_noise" or "gradient_noise": record} of those in use."""
        return self.run.rule.noises()

    @cached_property
    def plain(self):
        """Whether a step is w - eta g with nothing added to it."""
        return self.run.rule.plain()

    @property
    def plain_but_for_labels(self):
        """The same, but that there may be noise on labels."""
        return not (self.hyper or self.buffers or self.run.rule.penalty or "gradient_noise" in self.noises
                    or any(value not in (False, "none") for value in self.traits.values()))

    @property
    def flows(self):
        """Whether a step is a stretch of gradient flow."""
        return self.run.rule.flows

    @property
    def only_on_cpu(self):
        """None, or a sentence saying why cards have no kernel for the run, where the CPU has one."""
        return "gradient flow has kernels on the CPU alone" if self.flows else None

    @property
    def straight(self):
        """Whether a derivative goes straight into the parameters."""
        return self.plain and self.batch == 1

    @property
    def noise_on_one_label(self):
        """Whether noise on one random label comes on top of a full step."""
        return getattr(self.noises.get("label_noise"), "on", "batch") == "one"

    # ---- samples and their order

    @property
    def sets(self):
        """Number of data sets of which each network has one; 0 where all share one."""
        return self.run.data.sets

    @cached_property
    def one(self):
        """The Work of a run on one network's data and loss, as metrics see it."""
        shared = not self.sets and not self.run.loss.lengths()
        return self if shared else self.of(self.asked.data.one, self.asked.loss.picked(0))

    def of(self, data, loss):
        """The Work of the same run on other data, with another loss."""
        return Work(like(self.asked, data=data, loss=loss))

    def again(self, run):
        """The Work of a run that is the same but for step sizes, seed and start, of which a Work says nothing."""
        made = like(self, asked=run, run=_computed(run))
        made.__dict__.pop("one", None)
        return made

    @property
    def fresh(self):
        """Whether samples are made in the kernel."""
        return self.run.data.kind == "fresh"

    @property
    def streamed(self):
        """Whether a stretch of steps is a data set of its own, gone through in order."""
        return self.run.data.kind == "stream"

    @cached_property
    def teacher(self):
        """The Form of the teacher of fresh samples; None without one, or where it is traced."""
        model = getattr(self.run.data, "teacher", None)
        return None if model is None else form_of(model)

    @cached_property
    def teacher_weights(self):
        """[P of the teacher] in the run's dtype, None without a teacher that all networks share."""
        data = self.run.data
        model = getattr(data, "teacher", None)
        return None if model is None or "teachers" in self.fresh_each else self._flat(model, data.weights, 1)[0]

    def _flat(self, model, weights, N):
        return model.flatten(weights, N, "data.weights").astype(self.dtype)

    @property
    def density(self):
        """Of sparse inputs that all networks share, a number."""
        return float(self.run.data.density) if np.ndim(self.run.data.density) == 0 else 0.0

    @cached_property
    def fresh_each(self):
        """{"density", "scale", "teachers": [N, ...], or [1] what all share}: what samples made on the way have for each
        network, in the kernels' dtypes; {} where they have nothing.
        """
        data, out = self.run.data, {}
        if not self.fresh:
            return out
        if np.ndim(data.density):
            out["density"] = np.asarray(data.density, np.float64)
        if used(data.scale - 1):
            out["scale"] = np.atleast_1d(np.asarray(data.scale, self.dtype))
        if data.teachers:
            out["teachers"] = self._flat(data.teacher, data.weights, data.teachers)
        return out

    @cached_property
    def order(self):
        """How samples are drawn: "replace", "permute", "epochs", or "table" where they are given."""
        return self.run.order.kind if kind_of(self.run.order) is not None else None

    @cached_property
    def network(self):
        """Whose order all networks share, None where each has its own."""
        return getattr(self.run.order, "network", None)

    @cached_property
    def common(self):
        """The same for draws with replacement, and -1."""
        return -1 if self.network is None or self.order == "epochs" else self.network

    @cached_property
    def draws(self):
        """Samples of a step that an order draws: none of a full step, but one for noise on one label."""
        return int(self.noise_on_one_label) if self.full else self.batch

    @cached_property
    def ragged(self):
        """Whether steps have samples of different number."""
        return (self.draws > 0 and self.n > 0 and self.order is not None
                and self.run.order.counts(0, 1, self.n, self.draws) is not None)

    @property
    def epoch(self):
        """Samples of an epoch, 0 without epochs."""
        return self.run.order.epoch(self.n, self.draws) if self.order == "epochs" else 0

    @cached_property
    def permuted(self):
        """Whether the order is a table of permutations, made for a stretch of steps; kernels draw any other."""
        return self.draws > 0 and self.n > 0 and self.order in ("permute", "epochs")

    @property
    def tabled(self):
        """Whether a kernel reads its order from a table."""
        return self.streamed or self.permuted or (self.draws > 0 and self.order == "table")

    @property
    def one_row(self):
        """Whether all networks see the same samples: no lane has to fetch a row of its own."""
        order = self.run.order
        return not self.sets and (self.full or (self.order in ("replace", "permute") and self.network is not None) or (
            self.order == "table" and len(order.table) == 1))

    @cached_property
    def ours(self):
        """Whether all that says what the run is are this package's own classes, which do not change."""
        run = self.run
        return all(kind_of(part) is type(part) for part in (run.model, run.data, run.rule, run.order, run.loss,
                                                            *run.metrics))

    # ---- what is measured

    @cached_property
    def stops(self):
        """(Stop, the metric that it looks at) of each of the run's. Raises PlanError for one that is not possible."""
        if not self.run.stop:
            return ()
        from ..stops import metric_of

        return tuple((stop, metric_of(stop, self.run)) for stop in self.run.stop)

    @cached_property
    def metrics(self):
        """All metrics that are measured: those of the saved steps, and what only stops look at."""
        found = list(self.run.metrics)
        found += [metric for _, metric in self.stops if metric not in found]
        return tuple(found)

    # ---- which loop

    @cached_property
    def simple(self):
        """Whether the loss is plain and the data are given, which the fused loops want, and the form has one."""
        return (self.fused_form is not None and self.squared and self.order is not None
                and kind_of(self.run.rule) is not None and kind_of(self.run.data) is not None and not self.fresh
                and not self.ragged)

    @cached_property
    def fused(self):
        """Whether the run has the loop of its own that fuses plain steps on squared losses into one sweep."""
        return self.simple and self.plain

    @cached_property
    def carries(self):
        """Whether a fused loop can take its rule's step: one that moves each parameter by itself, and without noise."""
        return (self.simple and not self.plain and not self.noises and not self.groups and not self.run.rule.penalty
                and not self.traits["normalised"] and not self.traits["function"] and self.traits["perturb"] == "none"
                and not {"balance_penalty", "clip_norm"} & set(self.hyper))

    @property
    def stepwise(self):
        """Whether a step is one given sample's derivatives of one loss, and each parameter moves by its own alone."""
        return self.stepwise_but_for_losses and not self.losses

    @cached_property
    def stepwise_but_for_losses(self):
        """The same, but that networks may have losses of their own."""
        traced = own.parts(self.run).get("model")
        each = self.plain or (
            set(self.hyper) <= EACH and {name for name in contract.FLAGS if self.traits[name]} <= EACH_SO
            and self.traits["perturb"] == "none" and self.fixed is None
            and (traced is None or not traced.program.unused))  # every derivative is handed over
        return (each and self.batch == 1 and not self.full and self.n > 0 and not self.fresh and not self.streamed
                and not self.ragged and not self.noises and self.run.rule.penalty is None)

    @cached_property
    def unknown(self):
        """None, or a sentence saying why no kernel can know the run; what is a user's own may still be traced."""
        run = self.run
        return unknown(rule=run.rule, order=run.order, data=run.data)
