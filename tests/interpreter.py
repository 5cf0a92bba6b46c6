"""Owns what Triton's interpreter does only once instead of at every operation; what kernels compute stays the same.

It patches its language at every call of a function in a kernel, checks integers for an overflow it says nothing of,
and makes each tensor's shape and type anew: nine tenths of its time, for kernels that are small.
"""

from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

from triton.language import core
from triton.language.semantic import TritonSemantic
from triton.runtime import interpreter

SHAPES = {}  # {sizes: (block_type's shape, number of entries, as text, tensor's shape, its number of entries)}


def sizes_of(shape):
    return tuple([size.value if isinstance(size, core.constexpr) else size for size in shape])


def block_type_init(self, element_ty, shape, made=core.block_type.__init__):
    sizes = sizes_of(shape)
    if sizes not in SHAPES:
        made(self, element_ty, shape)  # checks it
        SHAPES[sizes] = (self.shape, self.numel, str(self.shape), core.tuple([core.constexpr(size) for size in sizes]),
                         core.constexpr(self.numel))
    self.element_ty = element_ty
    self.shape, self.numel, text, *_ = SHAPES[sizes]
    self.name = f"<{text}, {element_ty}>"


NO_SHAPE, ONE = core.tuple([]), core.constexpr(1)


def tensor_init(self, handle, type):
    self.handle, self.type, self.dtype = handle, type, type.scalar
    if type.is_block():
        *_, self.shape, self.numel = SHAPES[tuple(type.shape.values)]
    else:
        self.shape, self.numel = NO_SHAPE, ONE


def broadcast_impl_value(self, lhs, rhs, made=TritonSemantic.broadcast_impl_value):
    a, b = lhs.type, rhs.type
    if a.is_block() and b.is_block() and a.shape.values == b.shape.values:
        return lhs, rhs
    return made(self, lhs, rhs)


PLAIN = {"int32", "int64", "uint32", "uint64", "fp32", "fp64"}  # two of one of these are computed with as they are


NUMBERS = {}  # {(type of the other operand, number's type, number, ...): tensor of the number}


def binary_op_type_checking_impl(self, lhs, rhs, *more, made=TritonSemantic.binary_op_type_checking_impl, **named):
    one, other = lhs.__class__, rhs.__class__
    if one is core.tensor is other:
        a, b = lhs.type, rhs.type
        name = a.scalar.name
        if name in PLAIN and name == b.scalar.name and lhs.shape.values == rhs.shape.values:
            return lhs, rhs
    elif one is core.tensor and other in (int, float):
        key = lhs.type.name, other, rhs, more, *named.items()
        if key in NUMBERS:
            return lhs, NUMBERS[key]
        left, right = made(self, lhs, rhs, *more, **named)
        if left is lhs:
            NUMBERS[key] = right
        return left, right
    elif other is core.tensor and one in (int, float):
        key = one, lhs, rhs.type.name, more, *named.items()
        if key in NUMBERS:
            return NUMBERS[key], rhs
        left, right = made(self, lhs, rhs, *more, **named)
        if right is rhs:
            NUMBERS[key] = left
        return left, right
    return made(self, lhs, rhs, *more, **named)


CONSTANTS = {}  # {(type, value, type of Triton): tensor}


def scalar_constant(self, value, dtype, made=TritonSemantic.scalar_constant):
    key = value.__class__, value, dtype and dtype.name
    if key not in CONSTANTS:
        CONSTANTS[key] = made(self, value, dtype)
    return CONSTANTS[key]


NUMPY = {}  # {name of a type of Triton: type of NumPy}


def np_dtype(dtype, made=interpreter._get_np_dtype):
    if isinstance(dtype, core.block_type):
        dtype = dtype.element_ty
    if dtype.name not in NUMPY:
        NUMPY[dtype.name] = made(dtype)
    return NUMPY[dtype.name]


def patched_once(patch=interpreter._patch_lang):
    """_patch_lang that does its work once a launch; the launch's own scope restores."""
    done = set()

    def once(fn):
        modules = frozenset(id(fn.__globals__[name]) for name in ("tl", "core") if name in fn.__globals__)
        if modules in done:
            return interpreter._LangPatchScope()
        scope = patch(fn)
        restore = scope.restore

        def restored():
            done.clear()
            restore()

        done.add(modules)
        scope.restore = restored  # called by the launch alone
        return scope

    return once


@contextmanager
def once():
    """While it lasts, the interpreter does each of these things once."""
    options = replace(interpreter.interpreter_builder.options, sanitize_overflow=False)
    with (mock.patch.object(interpreter, "_patch_lang", patched_once()),
          mock.patch.object(interpreter.interpreter_builder, "options", options),
          mock.patch.object(interpreter, "_get_np_dtype", np_dtype),
          mock.patch.object(core.block_type, "__init__", block_type_init),
          mock.patch.object(core.tensor, "__init__", tensor_init),
          mock.patch.object(TritonSemantic, "broadcast_impl_value", broadcast_impl_value),
          mock.patch.object(TritonSemantic, "binary_op_type_checking_impl", binary_op_type_checking_impl),
          mock.patch.object(TritonSemantic, "scalar_constant", scalar_constant)):
        yield
