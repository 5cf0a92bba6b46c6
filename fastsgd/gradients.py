"""Owns derivatives of a torch function of one network, for many networks at once."""


def of_each(function):
    """The function (weights [N, P], *given [N, ...]) -> derivative [N, P] of `function` at each network's weights.

    function: (weights [P], *given [...]) -> a number, or (a number, something else that is returned, too); where it
        gives an array of numbers, the derivative is that of their sum

    Networks do not depend on each other, so the derivative of the sum over all of them has each one's own.
    torch.func.grad would import torch's compiler, which takes seconds.
    """
    import torch

    many = torch.func.vmap(function)

    def gradients(weights, *given):
        moving = weights.detach().requires_grad_()
        with torch.enable_grad():
            out = many(moving, *given)
        value, *more = out if isinstance(out, tuple) else (out,)
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value.sum(), moving, materialize_grads=True)
        else:
            gradient = torch.zeros_like(weights)
        return (gradient, *(one.detach() for one in more)) if more else gradient

    return gradients
