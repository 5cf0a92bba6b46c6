"""Owns the way to exact losses: what computes those of a population is imported for a population alone."""


def is_population(data):
    """Whether data are all inputs at once; whoever calls a metric by himself may give any object with what it reads."""
    return getattr(data, "kind", None) == "population"


def exact(model, data, loss):
    """(model, data, loss) whose mean is the training loss: of a population a network of one sample, else as given."""
    if not is_population(data):
        return model, data, loss
    from .population import as_network

    return as_network(model, data, loss)


def refuse_population(model, data, loss, rule=None):
    """None, or a sentence saying why these have no exact loss on a population; None of other data."""
    if not is_population(data):
        return None
    from .population import refuse

    return refuse(model, data, loss, rule)
